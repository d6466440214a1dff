"""Does `acme` keep the promises of a provider? What this machine cannot show is listed as not proven."""

from __future__ import annotations

from epkit.testing import ProviderConformance

from epkit_acme import Acme


class TestAcme(ProviderConformance):
    provider = Acme
