"""Read models of tenants."""

from projections.statements import View
from projections.tenancy.tenants import TENANTS

VIEWS: list[View] = [TENANTS]
