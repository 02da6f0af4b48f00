"""Generate responses to prompts with transformers or vLLM, resumably."""
