"""A daily USD budget for Amazon Bedrock."""

__version__ = "0.1.0"
