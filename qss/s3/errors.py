"""One table of S3 errors: code, HTTP status, message. And the total mapping from qss errors to it.

Source: "Error responses" of the Amazon S3 API reference. Backends, parser and server raise `S3Error`; the server
renders it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from qss.errors import (
    AccessDenied,
    Busy,
    Damaged,
    FsError,
    NoSpace,
    ObjectMissing,
    PreconditionFailed,
    QssError,
    Refused,
    Retryable,
    Unreachable,
)


@dataclass(frozen=True, slots=True)
class _Row:
    code: str  # as on the wire
    status: int  # HTTP
    message: str


class Code(Enum):
    """Every error this server can answer with."""

    ACCESS_DENIED = _Row("AccessDenied", 403, "Access Denied")
    ACCESS_FORBIDDEN = _Row(
        "AccessForbidden",
        403,
        "CORSResponse: This CORS request is not allowed. This is usually because the evaluation of Origin, request "
        "method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the "
        "resource's CORS spec.",
    )
    ACL_NOT_SUPPORTED = _Row("AccessControlListNotSupported", 400, "The bucket does not allow ACLs")
    AUTH_HEADER_MALFORMED = _Row(
        "AuthorizationHeaderMalformed", 400, "The authorization header that you provided is not valid."
    )
    AUTH_QUERY_MALFORMED = _Row(
        "AuthorizationQueryParametersError", 400, "The authorization query parameters that you provided are not valid."
    )
    BAD_DIGEST = _Row("BadDigest", 400, "The Content-MD5 or checksum value that you specified did not match the data.")
    BAD_REQUEST = _Row("BadRequest", 400, "Bad Request")
    BUCKET_ALREADY_OWNED = _Row(
        "BucketAlreadyOwnedByYou", 409, "The bucket you tried to create already exists, and you own it."
    )
    BUCKET_NOT_EMPTY = _Row("BucketNotEmpty", 409, "The bucket you tried to delete is not empty.")
    CONDITIONAL_CONFLICT = _Row(
        "ConditionalRequestConflict", 409, "A conflicting operation occurred during the request. Retry it."
    )
    CONTENT_SHA256_MISMATCH = _Row(
        "XAmzContentSHA256Mismatch", 400, "The provided 'x-amz-content-sha256' header does not match what was computed."
    )
    ENTITY_EXISTS = _Row("EntityAlreadyExists", 409, "There is one of this name already.")
    ENTITY_TOO_LARGE = _Row("EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed object size.")
    ENTITY_TOO_SMALL = _Row(
        "EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed object size."
    )
    EXPIRED = _Row("AccessDenied", 403, "Request has expired")
    INCOMPLETE_BODY = _Row(
        "IncompleteBody", 400, "The request body did not hold the number of bytes that its headers announced."
    )
    ILLEGAL_VERSIONING = _Row(
        "IllegalVersioningConfigurationException",
        400,
        "The versioning configuration specified in the request is invalid.",
    )
    INTERNAL_ERROR = _Row("InternalError", 500, "We encountered an internal error. Please try again.")
    INVALID_ACCESS_KEY = _Row(
        "InvalidAccessKeyId", 403, "The access key ID that you provided does not exist in our records."
    )
    INVALID_ARGUMENT = _Row("InvalidArgument", 400, "Invalid Argument")
    INVALID_BUCKET_STATE = _Row(
        "InvalidBucketState", 409, "The request is not valid with the current state of the bucket."
    )
    INVALID_BUCKET_NAME = _Row("InvalidBucketName", 400, "The specified bucket is not valid.")
    INVALID_DIGEST = _Row("InvalidDigest", 400, "The Content-MD5 or checksum value that you specified is not valid.")
    INVALID_ENCRYPTION_ALGORITHM = _Row(
        "InvalidEncryptionAlgorithmError",
        400,
        "The encryption request you specified is not valid. The valid value is AES256.",
    )
    INVALID_LOCATION = _Row(
        "InvalidLocationConstraint", 400, "The specified location-constraint is not valid for this server."
    )
    INVALID_PART = _Row(
        "InvalidPart", 400, "One or more of the specified parts could not be found, or its entity tag did not match."
    )
    INVALID_PART_NUMBER = _Row("InvalidPartNumber", 416, "The requested partnumber is not satisfiable")
    INVALID_PART_ORDER = _Row("InvalidPartOrder", 400, "The list of parts was not in ascending order.")
    INVALID_POLICY_DOCUMENT = _Row(
        "InvalidPolicyDocument", 400, "The content of the form does not meet the conditions specified in the policy."
    )
    INVALID_RANGE = _Row("InvalidRange", 416, "The requested range is not satisfiable")
    INVALID_REDIRECT = _Row("InvalidRedirectLocation", 400, "The website redirect location is not valid.")
    INVALID_REQUEST = _Row("InvalidRequest", 400, "Invalid Request")
    INVALID_RETENTION_PERIOD = _Row(
        "InvalidRetentionPeriod", 400, "Default retention period must be a positive integer value."
    )
    INVALID_STORAGE_CLASS = _Row("InvalidStorageClass", 400, "The storage class you specified is not valid")
    INVALID_TAG = _Row("InvalidTag", 400, "The tag provided was not a valid tag.")
    INVALID_URI = _Row("InvalidURI", 400, "The specified URI couldn't be parsed.")
    KEY_TOO_LONG = _Row("KeyTooLongError", 400, "Your key is too long")
    LIMIT_EXCEEDED = _Row("LimitExceeded", 409, "There are as many of these as there may be.")
    MALFORMED_POLICY = _Row("MalformedPolicy", 400, "This policy contains invalid Json")
    MALFORMED_POST = _Row(
        "MalformedPOSTRequest", 400, "The body of your POST request is not well-formed multipart/form-data."
    )
    MALFORMED_TRAILER = _Row(
        "MalformedTrailerError", 400, "The request contained trailing data that was not well-formed."
    )
    MALFORMED_XML = _Row(
        "MalformedXML", 400, "The XML you provided was not well-formed or did not validate against our published schema"
    )
    METADATA_TOO_LARGE = _Row(
        "MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size."
    )
    METHOD_NOT_ALLOWED = _Row("MethodNotAllowed", 405, "The specified method is not allowed against this resource.")
    MISSING_CONTENT_LENGTH = _Row("MissingContentLength", 411, "You must provide the Content-Length HTTP header.")
    NO_SUCH_BUCKET = _Row("NoSuchBucket", 404, "The specified bucket does not exist")
    NO_SUCH_CONFIGURATION = _Row("NoSuchConfiguration", 404, "The specified configuration does not exist.")
    NO_SUCH_BUCKET_POLICY = _Row("NoSuchBucketPolicy", 404, "The bucket policy does not exist")
    NO_SUCH_CORS = _Row("NoSuchCORSConfiguration", 404, "The CORS configuration does not exist")
    NO_SUCH_ENCRYPTION = _Row(
        "ServerSideEncryptionConfigurationNotFoundError",
        404,
        "The server side encryption configuration was not found",
    )
    NO_SUCH_ENTITY = _Row("NoSuchEntity", 404, "There is nothing of this name.")
    NO_SUCH_KEY = _Row("NoSuchKey", 404, "The specified key does not exist.")
    NO_SUCH_LIFECYCLE = _Row("NoSuchLifecycleConfiguration", 404, "The lifecycle configuration does not exist")
    NO_SUCH_LOCK_SETTINGS = _Row(
        "ObjectLockConfigurationNotFoundError", 404, "Object Lock configuration does not exist for this bucket"
    )
    NO_SUCH_OBJECT_LOCK = _Row(
        "NoSuchObjectLockConfiguration", 404, "The specified object does not have a ObjectLock configuration"
    )
    NO_SUCH_OWNERSHIP = _Row("OwnershipControlsNotFoundError", 404, "The bucket ownership controls were not found")
    NO_SUCH_PUBLIC_ACCESS = _Row(
        "NoSuchPublicAccessBlockConfiguration", 404, "The public access block configuration was not found"
    )
    NO_SUCH_REPLICATION = _Row(
        "ReplicationConfigurationNotFoundError", 404, "The replication configuration was not found"
    )
    NO_SUCH_TAG_SET = _Row("NoSuchTagSet", 404, "The TagSet does not exist")
    NO_SUCH_UPLOAD = _Row("NoSuchUpload", 404, "The specified multipart upload does not exist.")
    NO_SUCH_VERSION = _Row("NoSuchVersion", 404, "The specified version does not exist.")
    NO_SUCH_WEBSITE = _Row(
        "NoSuchWebsiteConfiguration", 404, "The specified bucket does not have a website configuration"
    )
    NOT_FOUND = _Row("NotFound", 404, "Not Found")
    NOT_IMPLEMENTED = _Row(
        "NotImplemented", 501, "A header or query you provided implies functionality not implemented."
    )
    NOT_MODIFIED = _Row("NotModified", 304, "Not Modified")
    OBJECT_DAMAGED = _Row(
        "ObjectDamaged", 500, "The stored bytes of this object do not verify. They are not returned; repair the object."
    )
    POST_FIELDS_TOO_LARGE = _Row(
        "MaxPostPreDataLengthExceededError",
        400,
        "Your POST request fields preceding the upload file were too large.",
    )
    PRECONDITION_FAILED = _Row(
        "PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold"
    )
    QUOTA_EXCEEDED = _Row("QuotaExceeded", 403, "The quota of this bucket does not leave room for this.")
    REQUEST_TIME_SKEWED = _Row(
        "RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large."
    )
    REQUEST_TIMEOUT = _Row("RequestTimeout", 400, "Your socket connection was not read from or written to in time.")
    SIGNATURE_MISMATCH = _Row(
        "SignatureDoesNotMatch",
        403,
        "The request signature we calculated does not match the one you provided. Check your key and signing method.",
    )
    SLOW_DOWN = _Row("SlowDown", 503, "Please reduce your request rate.")
    STORAGE_FULL = _Row("StorageFull", 507, "The storage of this server is full. Delete something or add a disk.")
    WRONG_FILE_COUNT = _Row(
        "IncorrectNumberOfFilesInPostRequest", 400, "POST requires exactly one file upload per request."
    )
    UNAVAILABLE = _Row("ServiceUnavailable", 503, "Please retry later.")

    @property
    def wire(self) -> str:
        return self.value.code

    @property
    def status(self) -> int:
        return self.value.status

    @property
    def message(self) -> str:
        return self.value.message


class S3Error(Refused):
    """An answer in S3's own words. `detail` replaces the table's message and must hold no secret."""

    def __init__(
        self,
        code: Code,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        elements: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail or code.message)
        self.code = code
        self.retry_after_s = retry_after_s
        self.headers = headers  # of the answer, besides the usual ones
        self.elements = elements  # of its document, likewise: name and text


# First match by isinstance wins, so subclasses stand before their bases. Total: the last row takes every QssError.
_FROM_QSS: tuple[tuple[type[QssError], Code], ...] = (
    (Busy, Code.SLOW_DOWN),
    (Unreachable, Code.UNAVAILABLE),
    (Retryable, Code.UNAVAILABLE),
    (ObjectMissing, Code.NO_SUCH_KEY),
    (Damaged, Code.OBJECT_DAMAGED),
    (AccessDenied, Code.ACCESS_DENIED),
    (PreconditionFailed, Code.PRECONDITION_FAILED),
    (Refused, Code.INVALID_REQUEST),
    (NoSpace, Code.STORAGE_FULL),
    (FsError, Code.INTERNAL_ERROR),
    (QssError, Code.INTERNAL_ERROR),
)


def to_s3(error: Exception) -> S3Error:
    """The S3 answer to any exception. Texts of unknown ones stay inside; they may hold paths."""
    if isinstance(error, S3Error):
        return error
    for kind, code in _FROM_QSS:
        if isinstance(error, kind):
            retry = error.retry_after_s if isinstance(error, Retryable) else None
            return S3Error(code, retry_after_s=retry)
    return S3Error(Code.INTERNAL_ERROR)
