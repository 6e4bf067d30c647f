"""nn.Modules and the files that hold them."""
