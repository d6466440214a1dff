"""Plugins that break one promise each, and keep the others: what the conformance kit must find.

Nothing finds them unless it is told to: `PYTHONPATH=tests EPKIT_PLUGINS=broken_plugins.prints epkit providers`. All but
those that are never opened stand on ONNX Runtime's CPU.
"""
