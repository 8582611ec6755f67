"""How a command ends: its exit codes."""

DONE = 0
#: The store failed, a check found something, or something unforeseen.
FAILED = 1
#: A mistake in the command line or the configuration, or a question that was not answered with yes.
USAGE = 2
#: ``explain``: the next call would be refused.
REFUSED = 3
#: ``reconcile``: metered and billed differ by more than the threshold.
DRIFT = 4
INTERRUPTED = 130
#: Whoever read the output closed it (``| head``).
PIPE_CLOSED = 141

EXPLAINED = """\
exit codes:
  0  done
  1  failed: the store did not answer, or is not ready for use; a price is missing (prices)
  2  a mistake in the command line or the configuration, or not confirmed
  3  refused: the next call would be refused (explain)
  4  drift: metered and billed differ by more than the threshold (reconcile)
"""
