"""What is asked of a network: the class of a picture, boxes, or pixels' classes; one module for each."""
