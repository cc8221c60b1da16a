from helpers.clients import a_client_that_keeps_up

__all__ = ["a_client_that_keeps_up"]
