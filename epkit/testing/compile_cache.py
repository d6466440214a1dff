"""Check that compiled models are kept where epkit wants them, and never used when they are stale."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epkit._system.folders import make_scratch_folder
from epkit.provider import Options
from epkit.testing import samples
from epkit.testing.inference import Running
from epkit.testing.options import written
from epkit.testing.promise import Broken, NotProven, promise

FIRST, SECOND = Path("kit-folder-1"), Path("kit-folder-2")


class Compiling(Running):
    """What holds of a provider that `compiles`."""

    @promise(of="compiling")
    def test_what_it_compiles_is_kept_in_the_folder_it_is_given(self) -> None:
        """`Caching.with_dir` names the folder in what is sent, none for None; a second session starts from it."""
        provider, device = self.subject.provider, self.subject.device
        sent = {
            folder: " ".join(provider.to_ort_options(self._cached(provider.options(), folder), device).values())
            for folder in (FIRST, SECOND, None)
        }
        for folder, told in sent.items():
            named = [variant.name for variant in (FIRST, SECOND) if variant.name in told]
            if named != ([] if folder is None else [folder.name]):
                where = f"the folder {folder.name}" if folder else "None, for keeping nothing"
                found = f"caching.with_dir() with {where} sends {told or 'nothing'!r}"
                raise Broken(found, "return the options with the folder as the place of what is compiled")
        self.subject.keep_apart("_keeps")

    @promise(of="compiling")
    def test_every_other_option_goes_into_what_it_compiles(self) -> None:
        """`Caching.with_dir` passes on each option but the folder's: another value makes another entry."""
        provider = self.subject.provider
        given = self._cached(provider.options(), FIRST)
        own = set(given.written())
        for name, value, options in written(provider):
            if name not in own and self._cached(options, FIRST).written().get(name) != value:
                told = (
                    f"caching.with_dir() drops {name} = {value!r}, so that what is compiled with it and without are one"
                )
                raise Broken(told, "return options.model_copy(update=...) with the folder alone changed")

    @promise(of="compiling")
    def test_new_weights_never_get_what_was_compiled_for_the_old(self) -> None:
        """A model with other weights under the same file name is compiled anew, and gives its own numbers."""
        self.subject.claims("float32")
        self.subject.keep_apart("_forgets_old_weights")

    @promise(of="compiling")
    def test_what_is_compiled_goes_stale_with_what_compiled_it(self) -> None:
        """`Caching.fingerprint` changes with versions and files: tried with other versions, sizes and times."""
        self.subject.usable()
        asked = self.subject.examined.asked
        (first, second), elsewhere = asked["stale"], asked["stale_elsewhere"]
        mend = "list the version of what compiles, or the size of its library, and the driver or processor"
        for found in (first, second, elsewhere):
            if isinstance(found, str):
                raise Broken(f"caching.fingerprint() {found}", mend)
        if not any(first):
            raise Broken("caching.fingerprint() lists nothing", mend)
        if first != second:
            raise Broken(
                f"caching.fingerprint() said {first}, then {second}", "leave out what differs from call to call"
            )
        if first == elsewhere:
            raise Broken(f"caching.fingerprint() said {first} for other versions and other files too", mend)

    def _cached(self, options: Options, folder: Path | None) -> Options:
        found = self.subject.provider.caching.with_dir(options, self.subject.device, folder)
        if not isinstance(found, Options):
            raise Broken(
                f"caching.with_dir() returned {found!r} where options belong", "return options.model_copy(update=...)"
            )
        return found

    def _keeps(self) -> None:
        sample = self.carried()[0]
        feed = sample.feed()
        with _empty_cache():
            for turn, wanted in enumerate(("built", "hit")):
                with self.open(sample, cache=True) as session:
                    row = next(row for row in session.report.cache if row.provider == self.subject.name)
                    if row.outcome != wanted:
                        told = f"session {turn + 1} of a model was {row.outcome!r}, not {wanted!r}: {row.reason}"
                        raise Broken(
                            told, "compile into the folder that caching.with_dir() is given, and start from it"
                        )
                    self.check(sample, feed, session.run(feed), f"({row.outcome})")

    def _forgets_old_weights(self) -> None:
        provider = self.subject.provider
        old, new = samples.networks("float32", provider)[-1], samples.networks("retrained", provider)[-1]
        with _empty_cache() as folder:
            file = folder / "model.onnx"
            for sample in (old, new):
                file.write_bytes(sample.contents)
                feed = sample.feed()
                with self.open(sample, file, cache=True) as session:
                    row = next(row for row in session.report.cache if row.provider == self.subject.name)
                    if row.outcome not in ("built", "failed"):
                        raise Broken(
                            f"the {sample.name} model was {row.outcome!r}", "keep nothing outside of the folder"
                        )
                    if row.outcome == "failed":
                        raise NotProven(f"nothing is kept: {row.reason}")
                    self.check(sample, feed, session.run(feed), "after other weights")


@contextmanager
def _empty_cache() -> Iterator[Path]:
    """Keep what is compiled in a folder of its own, in this process, which is epkit's own."""
    before = {name: os.environ.get(name) for name in ("EPKIT_CACHE_DIR", "EPKIT_PROBE")}
    with make_scratch_folder() as folder:
        # It has been proven already, and the answer is kept elsewhere.
        os.environ.update(EPKIT_CACHE_DIR=str(folder), EPKIT_PROBE="quick")
        try:
            yield folder
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
