"""The request to stop."""

from vone_jax.training.monitor import Stop


def test_a_request_to_stop_is_followed_by_a_single_process_at_once():
    requested = []
    stop = Stop(lambda: bool(requested))
    assert not stop.poll() and not stop.poll_all()
    requested.append(True)
    assert stop.poll() and stop.here and stop.everywhere


def test_a_request_to_stop_during_validation_reaches_all():
    stop = Stop(lambda: True)
    assert stop.poll_all() and stop.everywhere
