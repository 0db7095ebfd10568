"""How a stream leaves a given kind of server.

The rule of this layer: it imports ``penstock.engine`` and what is below, and knows servers, but no
framework. A door turns a request into an answer; the faces turn that into their framework's response.
"""
