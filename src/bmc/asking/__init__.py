"""Asking a model that costs money or time: once, within limits, and with every answer kept."""
