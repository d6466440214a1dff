"""Check that every option is documented, validated, and spelt as ONNX Runtime reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from epkit import wheels
from epkit.config.layers import table_of
from epkit.config.validation import validated
from epkit.discovery import listing
from epkit.discovery.listing import spelt
from epkit.errors import ConfigError, EpkitError
from epkit.provider import Device, Options, Provider
from epkit.runtime.plugin_calls import library_path, preload_paths
from epkit.testing.promise import Broken, NotProven, Promises, promise

NONSENSE = "no such value"


class Optioned(Promises):
    """What holds of the options. Nothing is run."""

    @promise()
    def test_every_option_is_documented(self) -> None:
        """A sentence stands under each option; help and reference are made of it."""
        for option in listing.options(self.subject.provider.options):
            if not option.meaning.strip().endswith("."):
                message = (
                    f"what stands under the option {option.name!r} does not end as a sentence"
                    if option.meaning
                    else f"the option {option.name!r} has no sentence under it"
                )
                raise Broken(message, f'write """What {option.name} does (ONNX Runtime\'s default).""" below it')

    @promise()
    def test_an_unknown_option_is_refused(self) -> None:
        """A misspelt name is an error before anything is probed, with the nearest spelling."""
        names = [name for name, _ in own_options(self.subject.provider)][:1]
        for wrong, right in [("no_such_option", ""), *((f"{name}_", name) for name in names)]:
            refused = self._refused({wrong: "1"})
            if refused is None:
                message = f"the option {wrong!r}, which there is not, was accepted"
                raise Broken(
                    message, "derive the options from epkit.provider.Options, and leave its model_config alone"
                )
            if right not in refused.hint:
                message = f"the option {wrong!r} is refused without a word of {right!r}: {refused}"
                raise Broken(message, "leave unknown names to epkit.provider.Options")

    @promise()
    def test_a_wrong_value_is_refused(self) -> None:
        """What is no value of an option is an error before anything is probed."""
        for name, field in own_options(self.subject.provider):
            kinds = spelt(field.annotation)
            wrong: list[object] = [] if "text" in kinds else [NONSENSE]
            wrong += [] if "table" in kinds else [{NONSENSE: [NONSENSE]}]
            for value in wrong:
                if self._refused({name: value}) is None:
                    message = f"the option {name!r} accepted {value!r}"
                    raise Broken(message, f"give {name} a type that says what it takes, such as Literal or bool")

    @promise()
    def test_options_are_sent_as_text_under_their_names(self) -> None:
        """`to_ort_options` gives texts, numbers, switches and lists too, under the names that ONNX Runtime knows."""
        provider = self.subject.provider
        for name, value, options in written(provider):
            sent = self._sent(options)
            for key, text in sent.items():
                if not isinstance(key, str) or not isinstance(text, str):
                    message = f"to_ort_options() sends {key!r} as a {type(text).__name__} where {name} = {value!r}"
                    raise Broken(message, "send texts only, as Provider.to_ort_options does")
            if name not in sent and not any(name in text for text in sent.values()):
                raise Broken(f"to_ort_options() leaves out {name} = {value!r}", f"send it as {name!r}")
            if isinstance(value, tuple) and any(str(shape) in sent.values() for shape in (value, list(value))):
                message = f"to_ort_options() sends {name} = {list(value)!r} as Python writes it"
                raise Broken(message, "write lists as ONNX Runtime reads them, as Provider.to_ort_options does")

    @promise()
    def test_what_is_unset_is_not_sent(self) -> None:
        """Without a word from the user nothing goes to ONNX Runtime but the device: its defaults stay its own."""
        provider = self.subject.provider
        for device in devices(provider):
            allowed = {provider.devices.option} if device is not None and provider.devices.option else set()
            for options in (provider.options(), *nothing_set(provider)):
                extra = {name: text for name, text in self._sent(options, device).items() if name not in allowed}
                if extra:
                    name, text = next(iter(extra.items()))
                    message = f"to_ort_options() sends {name} = {text!r} though nobody set it"
                    raise Broken(message, "send options.written() only; what right results need goes into always_sent")

    @promise()
    def test_what_is_always_sent_may_be_set_otherwise(self) -> None:
        """`always_sent` holds texts under the names of its options; what the user sets is sent in their place."""
        provider = self.subject.provider
        settable = {name for name, _, _ in written(provider)}
        for device in devices(provider):
            always = provider.always_sent(device)
            if not isinstance(always, Mapping) or not all(isinstance(text, str) for text in always.values()):
                raise Broken(f"always_sent() returned {always!r}", 'return texts under names: {"sticky": "0"}')
            for name in always:
                if name not in settable:
                    message = (
                        f"always_sent() returned {name!r}, which is none of its options: nobody can set it otherwise"
                    )
                    raise Broken(message, f"add {name} to its options, with a sentence that says why it is always sent")

    @promise()
    def test_options_that_onnx_runtime_would_ignore_are_refused(self) -> None:
        """Each option's name stands in ONNX Runtime's libraries, in the plugin's own, or in a header beside them.

        Others would be ignored. A provider that opens sessions in a way of its own is left out: its options need not be
        ONNX Runtime's.
        """
        provider = self.subject.provider
        if type(provider).open is not Provider.open:
            return
        unread = {name for name, _ in own_options(provider)}
        if not unread:
            return
        places = folders(provider)
        for library in libraries(places):
            unread = _not_in(library, unread)
        if unread:
            message = f"no library in {' or '.join(map(str, places))} holds the name {sorted(unread)[0]!r}"
            message += ", so ONNX Runtime would ignore the option"
            raise Broken(message, "leave the option out, or spell it as ONNX Runtime does")

    @promise()
    def test_a_device_that_makes_no_sense_is_refused(self) -> None:
        """`Devices.check` says what is wrong with a device that there cannot be, and nothing against the others."""
        provider = self.subject.provider
        for wrong in (-1, NONSENSE):
            if not provider.devices.check(wrong):
                raise Broken(f"device = {wrong!r} was accepted", "let devices.check say what a device may be")
        for right in devices(provider):
            if right is not None and (fault := provider.devices.check(right)):
                raise Broken(
                    f"device = {right!r} {fault}, but it is declared", "let devices.check and what is declared agree"
                )

    def _refused(self, options: dict[str, object]) -> ConfigError | None:
        """Return what epkit says against the options, None when it accepts them; raises Broken for other errors."""
        model, subject = self.subject.provider.options, f"option of {self.subject.name}"
        try:
            validated(model, table_of(options, "options"), "options", subject=subject)
        except ConfigError as error:
            return error
        except Exception as error:
            message = f"checking {options} raised {type(error).__name__}: {error}"
            raise Broken(message, "raise ValueError with one sentence in validators") from error
        return None

    def _sent(self, options: Options, device: Device | None = None) -> dict[str, str]:
        try:
            return dict(self.subject.provider.to_ort_options(options, device))
        except Exception as error:
            message = f"to_ort_options() raised {type(error).__name__}: {error} for {options.written()}"
            raise Broken(message, "encode whatever the options accept, as names and texts") from error


def own_options(provider: Provider) -> Iterator[tuple[str, FieldInfo]]:
    """Go through the options by ONNX Runtime's names, but `extra`."""
    for name, field in provider.options.model_fields.items():
        if name != "extra":
            yield field.alias or name, field


def written(provider: Provider) -> Iterator[tuple[str, object, Options]]:
    """Set each option alone to some values of its type, past the checks of whole options."""
    for name, field in provider.options.model_fields.items():
        if name != "extra":
            shown = field.alias or name
            for value in values_of(field.annotation):
                yield shown, value, provider.options.model_construct({name}, **{shown: value})


def nothing_set(provider: Provider) -> Iterator[Options]:
    """Set each option to None, as far as it may be."""
    for name, _ in own_options(provider):
        try:
            yield provider.options.model_validate({name: None})
        except ValueError:
            continue


def values_of(annotation: Any) -> list[object]:
    """Return values of a type: every choice, both sides of a switch, some number, some text."""
    kind, inside = get_origin(annotation) or annotation, get_args(annotation)
    plain: dict[Any, list[object]] = {bool: [True, False], int: [1], float: [0.5], str: ["text"]}
    if kind in plain:
        return plain[kind]
    if kind is Literal:
        return list(inside)
    if kind is Annotated:
        return values_of(inside[0])
    if kind in (tuple, list):
        return [tuple(values_of(inside[0])[:1] * 2)] if inside else []
    if kind is dict:
        return [{"name": values_of(inside[1])[0]}] if inside else []
    return [value for part in inside if part is not type(None) for value in values_of(part)]


def devices(provider: Provider) -> list[Device | None]:
    """Return no device, and those that the provider declares to know."""
    return [None, *provider.devices.kinds, *([0] if provider.devices.option and not provider.devices.kinds else [])]


def folders(provider: Provider) -> list[Path]:
    """Return where ONNX Runtime's libraries are, and the plugin's; raises NotProven where neither is installed."""
    runtime = wheels.origin("onnxruntime")
    found = [Path(runtime).parent / "capi"] if runtime else []
    try:
        libraries = [*preload_paths(provider), library_path(provider)]
    except EpkitError as error:
        raise NotProven(error.message) from error
    found += [library.parent for library in libraries if library is not None]
    there = [folder for folder in found if folder.is_dir()]
    if not there:
        raise NotProven("ONNX Runtime is not installed")
    return there


def libraries(places: Iterable[Path]) -> list[Path]:
    """Return the shared libraries in some folders, and the headers beside them, small ones first.

    A compiler may tear a short name apart, and then only the header holds it.
    """
    kinds = {".so", ".dll", ".dylib", ".pyd", ".h"}
    found = [file for folder in places for file in folder.iterdir() if kinds & set(file.suffixes)]
    return sorted((file for file in found if file.stat().st_size), key=lambda file: file.stat().st_size)


def _not_in(library: Path, names: set[str]) -> set[str]:
    if not names:
        return names
    missing = {name.encode() for name in names}
    overlap = max(map(len, missing)) - 1
    before = b""
    with library.open("rb") as file:
        while missing and (part := file.read(1 << 24)):
            missing = {name for name in missing if name not in before + part}
            before = part[-overlap:] if overlap else b""
    return {name.decode() for name in missing}
