"""What changes mean: images before and after, field history, repairs, and what is proven. Pure: time is an argument."""
