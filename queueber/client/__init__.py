"""queueber.client"""
