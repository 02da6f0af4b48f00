"""From raw data to the token ids that every stage shares."""
