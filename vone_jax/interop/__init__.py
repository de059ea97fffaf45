"""Networks of this project inside other people's tools. Import the module of the tool in use:

``interop.foolbox``, ``interop.art`` (Adversarial Robustness Toolbox), ``interop.brainscore``.
"""
