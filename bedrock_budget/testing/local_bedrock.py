"""`LocalBedrock`: Bedrock Runtime's wire protocol on a loopback port, and a ledger of what it served.

``python -m bedrock_budget.testing.local_bedrock --port 8080`` runs one for other processes.
"""

import argparse
import asyncio
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self

from ..core.usage import Usage
from .exchange import RawReply, Request
from .faults import BrokenStream, Drop, Faults, Refusal
from .http_connection import HttpConnection
from .ledger import Ledger
from .service import Service
from .settings import Settings

HOST = "127.0.0.1"
# Real clients may come by the thousand at once in a test.
_BACKLOG = 2048

_session_lock = threading.Lock()


class LocalBedrock(Settings):
    """A loopback HTTP server that an unchanged boto3 ``bedrock-runtime`` client takes for Bedrock.

    It serves Converse, ConverseStream, InvokeModel, InvokeModelWithResponseStream and CountTokens for any model id,
    from one asyncio thread; for ``bedrock`` clients also GetInferenceProfile and GetPromptRouter, which are in no
    ledger. The keywords are the attributes of `Settings`; ``port`` 0 takes a free one.

    Every request accepted is entered in `ledger` when it arrives and is billed whole, even if the caller goes away:
    so does the real service. Refused ones are entered with their status and no usage.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        latency_secs: float = 0.0,
        event_latency_secs: float = 0.0,
        stream_events: int = 20,
        output_tokens: int = 20,
        usage: Usage | Callable[[Request], Usage] | None = None,
        text: str | None = None,
        inference_profiles: Mapping[str, Sequence[str]] | None = None,
        prompt_routers: Mapping[str, Sequence[str]] | None = None,
        on_request: Callable[[Request], RawReply | None] | None = None,
    ) -> None:
        super().__init__(
            latency_secs=latency_secs,
            event_latency_secs=event_latency_secs,
            stream_events=stream_events,
            output_tokens=output_tokens,
            usage=usage,
            text=text,
            inference_profiles=inference_profiles or {},
            prompt_routers=prompt_routers or {},
            on_request=on_request,
        )
        self.ledger = Ledger()
        self._faults = Faults()
        self._port = port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked: asyncio.Event | None = None

    # --- running

    def start(self) -> Self:
        """Listen on 127.0.0.1 and return when connections are accepted. Raises OSError if the port is taken."""
        if self._thread is not None:
            raise RuntimeError("this LocalBedrock is running already")
        listening: Future[None] = Future()
        thread = threading.Thread(target=self._run, args=(listening,), name="local-bedrock", daemon=True)
        thread.start()
        listening.result()
        self._thread = thread
        return self

    def stop(self) -> None:
        """Close all connections and end the thread; calls in flight fail. The ledger stays. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None and self._stop_asked is not None  # noqa: PT018 - for the type checker
        self._loop.call_soon_threadsafe(self._stop_asked.set)
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, listening: "Future[None]") -> None:
        try:
            asyncio.run(self._listen(listening))
        except OSError as error:
            listening.set_exception(error)

    async def _listen(self, listening: "Future[None]") -> None:
        loop = asyncio.get_running_loop()
        connections: set[HttpConnection] = set()
        service = Service(self, self.ledger, self._faults)
        server = await loop.create_server(
            lambda: HttpConnection(loop, service.answer, connections), HOST, self._port, backlog=_BACKLOG
        )
        self._port = server.sockets[0].getsockname()[1]
        self._loop, self._stop_asked = loop, asyncio.Event()
        listening.set_result(None)
        await self._stop_asked.wait()
        # asyncio trips over a server that is closed between accepting a connection and setting it up, so first
        # stop accepting (a Windows loop cannot), then let a few turns of the loop finish what was begun.
        with suppress(NotImplementedError):
            loop.remove_reader(server.sockets[0].fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        while connections:
            for connection in tuple(connections):
                connection.abort()
            await asyncio.sleep(0)
        await server.wait_closed()

    @property
    def port(self) -> int:
        """The TCP port; 0 before the first start if none was given."""
        return self._port

    @property
    def url(self) -> str:
        """The endpoint URL to give to a client."""
        return f"http://{HOST}:{self._port}"

    def client(self, **kwargs: Any) -> Any:
        """A boto3 ``bedrock-runtime`` client of this server: dummy credentials, region us-east-1.

        ``kwargs`` go to ``boto3.Session.client`` and win; a ``config`` (`botocore.config.Config`) is merged in.
        botocore's retries are on, as ever: a refusal such as throttling is seen only after them.
        """
        from botocore.config import Config  # noqa: PLC0415 - a server process needs no SDK

        # A proxy from the environment must not come between a client and the loopback interface.
        config: Any = Config(proxies={})
        if kwargs.get("config") is not None:
            config = config.merge(kwargs["config"])
        settings = {
            "endpoint_url": self.url,
            "region_name": "us-east-1",
            "aws_access_key_id": "local",
            "aws_secret_access_key": "local",
            **kwargs,
            "config": config,
        }
        with _session_lock:  # sessions are not thread-safe, the clients they make are
            return _session().client("bedrock-runtime", **settings)

    # --- what goes wrong, and other replies than the usual

    def fail_next(
        self,
        n: int = 1,
        *,
        status: int = 429,
        code: str = "ThrottlingException",
        message: str = "Too many requests, please wait before trying again.",
        operation: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """Refuse the next ``n`` requests (of an operation, of a model) with an error. They are not billed."""
        self._faults.add(Refusal(status, code, message), n, operation, model_id)

    def drop_next(
        self,
        n: int = 1,
        *,
        when: Literal["before", "after", "body"] = "before",
        operation: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """Close the connection of the next ``n`` requests.

        ``"before"``: at once, unprocessed; nothing is billed or entered. ``"after"``: processed and billed, but no
        byte of the reply is sent. ``"body"``: billed, and about half of the body is sent.
        """
        if when not in ("before", "after", "body"):
            raise ValueError(f'when is "before", "after" or "body", got {when!r}')
        self._faults.add(Drop(when), n, operation, model_id)

    def break_stream_next(
        self,
        n: int = 1,
        *,
        after_events: int = 5,
        error: str | None = "modelStreamErrorException",
        message: str = "The model stream broke off.",
        operation: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """Break the next ``n`` streams after some text deltas: with an exception event, or cut off (``error`` None).

        They are billed whole, entered with ``complete=False``; usage never reaches the caller.
        """
        self._faults.add(BrokenStream(after_events, error, message), n, operation, model_id)

    def raw_next(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        usage: Usage | None = None,
        operation: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """Serve the next request exactly these bytes, for recorded traffic. ``usage`` is what the ledger bills."""
        self._faults.add(RawReply(status, headers, body, usage), 1, operation, model_id)

    def clear_faults(self) -> None:
        """Forget all the faults and raw replies that have not happened yet."""
        self._faults.clear()


@cache
def _session() -> Any:
    # One for all servers: a session takes a while to load the service's model.
    from boto3.session import Session  # noqa: PLC0415 - a server process needs no SDK

    return Session()


def main(argv: Sequence[str] | None = None) -> None:
    """Run a server until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m bedrock_budget.testing.local_bedrock",
        description="A local stand-in for Amazon Bedrock Runtime, on 127.0.0.1. "
        "GET /_local/ledger shows what it served; POST /_local/settings changes how it answers.",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0 (the default) takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECS", help="seconds before each reply")
    parser.add_argument("--event-latency", type=float, default=0.0, metavar="SECS", help="seconds between events")
    parser.add_argument("--stream-events", type=int, default=20, metavar="N", help="text deltas of a stream")
    parser.add_argument("--output-tokens", type=int, default=20, metavar="N", help="output tokens of each reply")
    parser.add_argument("--text", default=None, help="text of each reply")
    options = parser.parse_args(argv)
    server = LocalBedrock(port=options.port)
    try:
        server.update(
            {
                "latency_secs": options.latency,
                "event_latency_secs": options.event_latency,
                "stream_events": options.stream_events,
                "output_tokens": options.output_tokens,
                "text": options.text,
            }
        )
    except ValueError as error:
        parser.error(str(error))
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: object) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    with server:
        print(f"listening on {server.url}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
