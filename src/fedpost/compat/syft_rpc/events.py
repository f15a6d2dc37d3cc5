"""Answering requests: the loop that takes them out of the folder.

Rules, in the order in which a request is looked at: a file that is not whole yet is left alone, one that is no request
is set aside with a note; a request that was begun before is never executed again, it gets the response that is kept;
one that has expired, or is to nobody here, is refused; its body is read before its function is called.

A function is called at most once for a request. When the process dies before the response is kept, the next one answers
with status 500: nobody knows how far it came. Functions that may run twice can be registered as ``idempotent``: they
are called again. Once kept, a response is the only one that is ever given.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar

from fedpost.compat.syft_rpc.datasites import Client
from fedpost.compat.syft_rpc.endpoints import Endpoints
from fedpost.compat.syft_rpc.errors import syft_errors
from fedpost.compat.syft_rpc.inbox import Inbox
from fedpost.compat.syft_rpc.journal import Journal
from fedpost.compat.syft_rpc.messages import MESSAGE_LIMITS, SyftRequest, SyftResponse
from fedpost.compat.syft_rpc.status import SyftStatus
from fedpost.compat.syft_rpc.url import make_url
from fedpost.errors import ConfigError, FedpostError, TransportError
from fedpost.frame import Limits

__all__ = ["SyftEvents"]

F = TypeVar("F", bound=Callable[[Any], Any])

_LOOK: Final = 1.0
_CLEAN: Final = timedelta(minutes=10)
_INTERRUPTED: Final = "the server was interrupted; the request may have been executed, and is not executed again"
_log = logging.getLogger("fedpost.compat.syft_rpc")


class SyftEvents:
    """One app's endpoints in the own datasite.

    Args:
        app_name: The app.
        client: Who answers; without it the one of SyftBox's configuration.
        workers: How many handlers run at once, each in a thread.
        longest: The longest expiry that a request may have: for so long it is remembered.
        keep: For how long a response stays after its request has expired.
        limits: The budget for a request; without it 1 GiB.

    Raises:
        ConfigError: Not a name of an app, no worker, or no client.
    """

    def __init__(
        self,
        app_name: str,
        client: Client | None = None,
        *,
        workers: int = 1,
        longest: timedelta = timedelta(days=30),
        keep: timedelta = timedelta(days=1),
        limits: Limits = MESSAGE_LIMITS,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"{workers} workers")
        self.client: Final = Client.load() if client is None else client
        self.app_name: Final = app_name
        self._mailbox = self.client.mailbox(make_url(self.client.email, app_name, "any"))
        self._inbox = Inbox(self._mailbox, limits)
        self._journal = Journal(self.client.private / "rpc" / app_name, limits)
        self._endpoints = Endpoints(self.client.email, app_name, longest)
        self._workers = workers
        self._keep = keep
        self._cleaned = datetime.min.replace(tzinfo=UTC)
        self._longest = longest
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._own = threading.local()

    def on_request(self, endpoint: str, *, idempotent: bool = False) -> Callable[[F], F]:
        """Decorate the function that answers requests to an endpoint.

        It takes one argument. Without an annotation, or with :class:`SyftRequest`, that is the request; with any other
        it is the body, which must be what the annotation says: other bodies get status 400, and the function is not
        called. What it returns is the response's body; a :class:`Response` says more.

        Args:
            endpoint: The endpoint, such as ``"/ping"``.
            idempotent: Whether it may be called again for a request after the process was killed.

        Raises:
            RegistryError: The endpoint has a function.
            ConfigError: Not an endpoint, or a function of other arguments.
        """

        def decorate(function: F) -> F:
            self._endpoints.add(endpoint, function, idempotent=idempotent)
            return function

        return decorate

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run_forever(self) -> None:
        """Answer requests until :meth:`stop` is called, or Ctrl-C pressed; those that were begun are answered first.

        Raises:
            ConfigError: This app is being served already.
            SyftTransportError: The folder cannot be read or watched.
        """
        try:
            with self._opened(), self._watched() as look_again:
                self._loop(look_again)
        finally:
            self._stop.clear()

    def start(self) -> Self:
        """Answer requests in a thread of its own until :meth:`stop` is called.

        Raises:
            ConfigError: This app is being served already.
            SyftTransportError: The folder cannot be read or watched.
        """
        if self._thread is not None and self._thread.is_alive():
            raise ConfigError("this app is being served already", where=self.app_name)
        ready: Future[None] = Future()

        def run() -> None:
            try:
                with self._opened(), self._watched() as look_again:
                    self._stop.clear()
                    ready.set_result(None)
                    self._loop(look_again)
            except BaseException as error:  # whatever it is: somebody waits
                if ready.done():
                    raise
                ready.set_exception(error)

        thread = threading.Thread(target=run, name=f"rpc-{self.app_name}", daemon=True)
        thread.start()
        self._thread = thread
        try:
            ready.result()
        except BaseException:
            if ready.done():  # and not Ctrl-C while it begins
                thread.join()
            raise
        return self

    def stop(self) -> None:
        """Take no more requests; after :meth:`start`, also wait for those that were begun.

        A handler may call it, too: then nothing is waited for, as it would wait for itself.
        """
        self._stop.set()
        thread = self._thread
        if thread is not None and not getattr(self._own, "works", False):
            thread.join()
            self._thread = None

    def process_pending(self) -> int:
        """Answer the requests that are there now, and return how many files were looked at.

        Raises:
            ConfigError: This app is being served already.
            SyftTransportError: The folder cannot be read.
        """
        with self._opened():
            self._stop.clear()
            with self._pool() as pool:
                done, _ = wait(self._look(pool))
        return len(done)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with syft_errors():
            self._journal.open()
            try:
                self._recover()
                yield
            finally:
                self._journal.close()

    @contextmanager
    def _watched(self) -> Iterator[Callable[[], None]]:
        watch = self._mailbox.store.watch(self._mailbox.requests)
        try:
            yield lambda: watch.wait(_LOOK)
        finally:
            watch.close()

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        def begin() -> None:
            self._own.works = True

        with ThreadPoolExecutor(self._workers, f"rpc-{self.app_name}", begin) as pool:
            try:
                yield pool
            except BaseException:  # Ctrl-C: what is only queued is not begun any more
                self._stop.set()
                raise

    def _loop(self, look_again: Callable[[], None]) -> None:
        with self._pool() as pool:
            while not self._stop.is_set():
                try:
                    self._look(pool)
                except TransportError as error:  # a network folder may come back
                    _log.warning("%s cannot be served: %s", self.app_name, error)
                look_again()

    def _recover(self) -> None:
        """Settle what a process before this one has left."""
        self._forget_expired()
        for note in self._journal.unanswered():
            if self._endpoints.is_idempotent(note) and self._mailbox.has(self._mailbox.request(note.id)):
                self._journal.forget(note.id)
            else:
                _log.warning("request %s was interrupted", note.id)
                response = self._endpoints.respond(note, SyftStatus.SYFT_500_SERVER_ERROR, _INTERRUPTED)
                self._journal.answer(response)
                self._give(response)

    def _look(self, pool: ThreadPoolExecutor) -> list[Future[None]]:
        if datetime.now(UTC) - self._cleaned > _CLEAN:
            self._clean()
        return [pool.submit(self._deal_with, key, size) for key, size in self._inbox.new()]

    def _deal_with(self, key: str, size: int) -> None:
        try:
            request = None if self._stop.is_set() else self._inbox.read(key, size)
            if request is not None:
                self._answer(request)
                self._inbox.remove(key)
        except FedpostError as error:  # the folder's, or the journal's; the request stays, and is looked at again
            _log.warning("%s: %s", key, error)
        except Exception:  # noqa: BLE001 - a fault of this program, which would only come again
            self._inbox.leave(key, size)
            _log.exception("%s is left alone", key)
        finally:
            self._inbox.release(key)

    def _answer(self, request: SyftRequest) -> None:
        if self._journal.has(request.id):
            known = self._journal.response(request.id)
            self._give(known or self._endpoints.respond(request.header, SyftStatus.SYFT_500_SERVER_ERROR, _INTERRUPTED))
            return
        call = self._endpoints.prepare(request)
        if isinstance(call, SyftResponse):
            if not self._mailbox.has(self._mailbox.response(request.id)):  # what was answered once stays
                self._give(call)
        else:
            self._journal.begin(request.header)
            response = self._endpoints.execute(call)
            self._journal.answer(response)
            self._give(response)

    def _give(self, response: SyftResponse) -> None:
        self._mailbox.store.put(self._mailbox.response(response.id), response.frame.buffers())

    def _clean(self) -> None:
        self._cleaned = datetime.now(UTC)
        self._forget_expired()
        self._inbox.clean(self._journal.has, self._keep, self._longest)

    def _forget_expired(self) -> None:
        for ident in self._journal.over(self._keep.total_seconds()):
            self._mailbox.store.delete(self._mailbox.response(ident))
            self._journal.forget(ident)
