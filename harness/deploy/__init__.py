"""Networks as they are deployed: folders with weights and a card, ONNX, and latency."""
