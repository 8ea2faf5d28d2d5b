"""Salesforce Messaging sessions in Kafka: every change once, in order, with proof that nothing is missing."""

__version__ = "0.1.0"
