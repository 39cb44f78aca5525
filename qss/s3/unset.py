"""What of S3 is not built here, answered honestly: reading it says that nothing is set, setting it is NotImplemented.

Taking away what is not there succeeds, as with AWS. Source: the GetBucket… pages of the S3 API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qss.s3.errors import Code, S3Error
from qss.s3.message import Response
from qss.s3.render import xml_response
from qss.s3.xml import leaf


@dataclass(frozen=True, slots=True)
class Unset:
    """A subresource of a bucket that nobody can have set."""

    document: str = ""  # what reading gives …
    content: tuple[str, ...] = ()
    error: Code | None = None  # … or this
    listing: str = ""  # what reading gives without an id; with one it is `error`


UNSET: Final[Mapping[str, Unset]] = {
    "accelerate": Unset("AccelerateConfiguration"),
    "logging": Unset("BucketLoggingStatus"),
    "notification": Unset("NotificationConfiguration"),
    "requestPayment": Unset("RequestPaymentConfiguration", (leaf("Payer", "BucketOwner"),)),
    "replication": Unset(error=Code.NO_SUCH_REPLICATION),
    "website": Unset(error=Code.NO_SUCH_WEBSITE),
    "analytics": Unset(error=Code.NO_SUCH_CONFIGURATION, listing="ListBucketAnalyticsConfigurationsResult"),
    "intelligent-tiering": Unset(
        error=Code.NO_SUCH_CONFIGURATION, listing="ListBucketIntelligentTieringConfigurationsOutput"
    ),
    "inventory": Unset(error=Code.NO_SUCH_CONFIGURATION, listing="ListInventoryConfigurationsResult"),
    "metrics": Unset(error=Code.NO_SUCH_CONFIGURATION, listing="ListMetricsConfigurationsResult"),
}


def told(name: str, *, with_id: bool) -> Response:
    """What reading the subresource answers. Raises S3Error."""
    found = UNSET[name]
    if found.listing and not with_id:
        return xml_response(found.listing, [leaf("IsTruncated", False)])
    if found.error is not None:
        raise S3Error(found.error)
    return xml_response(found.document, found.content)
