"""The ASDF extension: schemas, and converters between objects of this package and the nodes they describe."""
