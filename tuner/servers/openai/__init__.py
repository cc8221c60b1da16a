"""The OpenAI API: routes, request bodies, and how a streamed answer is read."""
