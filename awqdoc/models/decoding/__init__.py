"""A whole Llama decoded token by token: products by a backend, a static cache, a step as one CUDA graph."""

from awqdoc.models.decoding.breakdown import KINDS, Launch, kinds
from awqdoc.models.decoding.decoder import Decoder
from awqdoc.models.decoding.weights import Product, Weights, llama_3_8b, random_weights, weights_of

__all__ = [
    "KINDS",
    "Decoder",
    "Launch",
    "Product",
    "Weights",
    "kinds",
    "llama_3_8b",
    "random_weights",
    "weights_of",
]
