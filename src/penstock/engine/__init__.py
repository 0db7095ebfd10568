"""What makes a log live: appends in groups, follows the log, and fans out to streams.

The rule of this layer: it imports ``penstock.log``, ``penstock.core``, ``penstock.options``,
``penstock.greenlets``, ``penstock.loops``, ``penstock.threads`` and ``penstock.errors``. It knows nothing
of HTTP, servers and frameworks. What blocks, or starts a thread, is of ``penstock.threads``, never of
``threading``.
"""
