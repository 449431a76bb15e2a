"""The report that travels with a bundle: one page, as Markdown and as HTML with plots and pictures in it."""
