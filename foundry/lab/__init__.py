"""The cluster lab: nodes of one image on a private network, and everything that production does to them."""
