"""queueber.server"""
