"""What can be seen of a running pipeline: metrics, health, and the server that shows them."""
