"""A page of HTML that explains a detector: sections are pure functions, numbers in, markup out.

Nothing in it comes from elsewhere: plots stand in it as SVG, pictures as JPEG.
"""
