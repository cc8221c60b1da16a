"""The confirmation: the front measured again, on traffic that the search did not see."""
