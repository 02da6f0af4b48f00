"""What a judge says of an evaluation's responses: AlpacaEval 2 and Arena-Hard v0.1, each by its published scheme."""
