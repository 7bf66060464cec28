"""The network: encoder, quantizer, decoder."""
