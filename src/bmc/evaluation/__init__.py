"""Scores of responses, and how sure they are."""
