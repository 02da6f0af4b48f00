"""LLM client with rate limits, a cost cap and a response cache."""
