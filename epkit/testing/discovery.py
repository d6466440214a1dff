"""Check that the provider is found, that its import changes nothing else, and what its probe returns."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from epkit.testing.import_worker import HEAVY, QUICK_S
from epkit.testing.promise import Broken, NotProven, Promises, promise


class Found(Promises):
    """What holds before anything is run. Tried in a fresh interpreter."""

    @promise()
    def test_it_is_found_under_its_own_name(self) -> None:
        """A plugin that is installed, or named in `EPKIT_PLUGINS`, offers it under a name that nobody else has."""
        _ = self.subject.found

    @promise()
    def test_importing_it_loads_nothing_heavy(self) -> None:
        """The plugin's module imports neither ONNX Runtime nor NumPy nor a framework: every list imports it."""
        loaded = self._imported()["loaded"]
        if loaded:
            raise Broken(f"importing it imports {', '.join(loaded)}", "import it in the function that needs it")

    @promise()
    def test_importing_it_prints_nothing(self) -> None:
        """What a plugin prints at import would stand in every program's output."""
        printed = self.subject.examined.printed.strip() if self._imported() else ""
        if printed:
            raise Broken(
                f"importing it printed {printed.splitlines()[0][:200]!r}", "say it in the detail of the probe's answer"
            )

    @promise()
    def test_importing_it_changes_no_environment_and_no_logging(self) -> None:
        """The environment and the loggers are the application's."""
        imported = self._imported()
        if imported["environment"]:
            message = f"importing it changes {', '.join(imported['environment'])} in the environment"
            raise Broken(message, "do in `prepare` what must happen before the provider can load")
        if imported["logging"]:
            message = f"importing it configures logging: {', '.join(imported['logging'])}"
            raise Broken(message, "log through logging.getLogger(__name__), and configure nothing")

    @promise()
    def test_the_probe_answers_and_never_raises(self) -> None:
        """`probe` returns `Usable` or `Unusable`, whatever the machine lacks."""
        asked = self._asked()
        if asked["raised"]:
            raise Broken(f"probe() raised {asked['raised']}", "catch it, and return Unusable(reason, hint)")
        if asked["answer"]:
            raise Broken(f"probe() returned {asked['answer']}", "return Usable(detail) or Unusable(reason, hint)")

    @promise()
    def test_the_probe_is_quick(self) -> None:
        """The best of some calls takes less than 2 seconds: every listing and every opening asks it."""
        seconds = self._answered()["seconds"]
        if seconds >= QUICK_S:
            message = f"probe() took {seconds:.1f} s at best"
            raise Broken(message, "look for files and devices only: epkit proves the rest by itself")

    @promise()
    def test_the_probe_loads_nothing_heavy(self) -> None:
        """`probe`, `fingerprint` and `Caching.fingerprint` import neither ONNX Runtime nor NumPy nor a framework."""
        loaded = self._answered()["loaded"]
        if loaded:
            raise Broken(
                f"probe() imports {', '.join(loaded)}", f"ask without importing any of {', '.join(HEAVY)}: epkit.wheels"
            )

    @promise()
    def test_the_probe_is_truthful(self) -> None:
        """What it calls usable opens in epkit's proof; what it calls unusable says why, and what to do."""
        asked, subject = self._answered(), self.subject
        if not asked["usable"]:
            if not asked["reason"].strip():
                raise Broken("probe() calls it unusable and gives no reason", "Unusable(reason, hint)")
            if not asked["hint"].strip():
                message = f"probe() calls it unusable ({asked['reason']}) and does not say what to do"
                raise Broken(message, "give a hint, the command that mends it: Unusable(reason, hint=...)")
        elif not subject.answer.usable and not subject.misplaced:
            reason = getattr(subject.answer.availability, "reason", "")
            message = f"probe() calls it usable, and its proof failed: {reason}"
            unknown = "Unknown Provider Type" in reason
            other = "spell ort_name as ONNX Runtime does" if unknown else "mend that"
            raise Broken(message, f"{other}, or let probe() look for what is missing here: Unusable(reason, hint)")

    @promise()
    def test_the_fingerprint_holds_still(self) -> None:
        """`fingerprint` lists the same texts while nothing changes: epkit remembers the proof under them."""
        first, second = self._answered()["fingerprints"]
        for found in (first, second):
            if isinstance(found, str):
                raise Broken(f"fingerprint() {found}", "return texts: paths, versions, device nodes")
        if first != second:
            one, other = next(pair for pair in zip_longest(first, second) if pair[0] != pair[1])
            message = f"{one!r}, then {other!r}"
            raise Broken(f"fingerprint() said {message}", "leave out what differs from call to call")

    def _imported(self) -> Mapping[str, Any]:
        examined = self.subject.examined
        if not examined.imported:
            raise Broken(f"importing it in a fresh interpreter {examined.ending}", "python -c 'import ...'")
        return examined.imported

    def _asked(self) -> Mapping[str, Any]:
        examined = self.subject.examined
        if not examined.asked:
            raise Broken(
                f"the process in which probe() was asked {examined.ending}",
                "look without loading what may crash or hang",
            )
        return examined.asked

    def _answered(self) -> Mapping[str, Any]:
        try:
            asked = self._asked()
        except Broken as broken:
            raise NotProven(broken.found) from None
        if asked["raised"] or asked["answer"]:
            raise NotProven("its probe gave no answer")
        return asked
