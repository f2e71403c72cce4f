"""What sources of data are read with: downloads, caches, stores, decoders, vocabularies."""
