"""Checks of an S3 endpoint with boto3, run by clients (boto3.go).

Prints "ok NAME" or "FAILED NAME<tab>REASON" for every check and "finished" at
the end. Works with boto3 1.26 and newer. Requests that boto3 would not send
(truncated, skewed, with a wrong hash) are signed and sent by hand.
"""
import concurrent.futures
import datetime
import hashlib
import hmac
import io
import os
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import boto3
import botocore.config
import botocore.exceptions
from boto3.s3.transfer import TransferConfig

ENDPOINT, BUCKET, TREE, SCRATCH = sys.argv[1:5]
FILES = sys.argv[5:]
ACCESS, SECRET = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
MIB = 1 << 20
ODD = ["a b/c+d.txt", "percent%41&amp=?", "ümlaut/日本語", "quote'\"<x>", "..//dots/../.", "tab\tnew", "~-._!*()"]
CHECKS = []


def client(secret=SECRET, access=ACCESS, **config):
    config.setdefault("retries", {"max_attempts": 1})
    return boto3.client("s3", endpoint_url=ENDPOINT, aws_access_key_id=access, aws_secret_access_key=secret,
                        region_name="us-east-1",
                        config=botocore.config.Config(s3={"addressing_style": "path"}, signature_version="s3v4",
                                                      max_pool_connections=20, **config))


s3 = client()


def check(name):
    def register(function):
        CHECKS.append((name, function))
        return function
    return register


def equal(got, want, what="value"):
    if got != want:
        raise AssertionError("%s is %r, want %r" % (what, got, want))


def refused(code, call, *args, status=None, **kwargs):
    """The call must fail with one of the codes (a|b) and the status."""
    try:
        call(*args, **kwargs)
    except botocore.exceptions.ClientError as e:
        got = e.response["Error"]["Code"]
        if got not in code.split("|"):
            raise AssertionError("code is %s (%s), want %s" % (got, e.response["Error"].get("Message"), code))
        if status is not None:
            equal(e.response["ResponseMetadata"]["HTTPStatusCode"], status, "status")
        return
    raise AssertionError("it succeeded, want %s" % code)


def absent(key):
    refused("404|NoSuchKey", s3.head_object, Bucket=BUCKET, Key=key)


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for part in iter(lambda: f.read(MIB), b""):
            h.update(part)
    return h.hexdigest()


def get(key, **kwargs):
    return s3.get_object(Bucket=BUCKET, Key=key, **kwargs)["Body"].read()


def put(key, body, **kwargs):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **kwargs)


# ---- requests by hand ----

def signed_request(method, key, body, when=None, payload=None, extra=None):
    """Returns (path, headers) of a request signed with Signature Version 4."""
    when = when or datetime.datetime.now(datetime.timezone.utc)
    stamp, day = when.strftime("%Y%m%dT%H%M%SZ"), when.strftime("%Y%m%d")
    host = urllib.parse.urlsplit(ENDPOINT).netloc
    path = "/" + BUCKET + "/" + urllib.parse.quote(key, safe="/-._~")
    headers = {"host": host, "x-amz-date": stamp,
               "x-amz-content-sha256": payload or hashlib.sha256(body).hexdigest()}
    headers.update(extra or {})
    names = ";".join(sorted(headers))
    canonical = "\n".join([method, path, ""] + ["%s:%s" % (n, headers[n]) for n in sorted(headers)] +
                          ["", names, headers["x-amz-content-sha256"]])
    scope = day + "/us-east-1/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    secret = ("AWS4" + SECRET).encode()
    for part in (day, "us-east-1", "s3", "aws4_request"):
        secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
        ACCESS, scope, names, hmac.new(secret, text.encode(), hashlib.sha256).hexdigest())
    return path, headers


def send(method, url, body=None, headers=None):
    """Returns (status, body) of a plain request."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def code_of(body):
    text = body.decode("utf-8", "replace")
    return text.split("<Code>")[1].split("</Code>")[0] if "<Code>" in text else text[:100]


def by_hand(method, key, body=b"", **kwargs):
    path, headers = signed_request(method, key, body, **kwargs)
    headers["content-length"] = str(len(body))
    status, answer = send(method, ENDPOINT.rstrip("/") + path, body or None, headers)
    return status, answer


def refused_by_hand(code, status, *args, **kwargs):
    got, body = by_hand(*args, **kwargs)
    if (got, code_of(body)) != (status, code):
        raise AssertionError("%s %s, want %s %s" % (got, code_of(body), status, code))


# ---- buckets ----

@check("create_bucket, head_bucket, list_buckets, get_bucket_location")
def _():
    s3.create_bucket(Bucket=BUCKET)
    s3.head_bucket(Bucket=BUCKET)
    if BUCKET not in [b["Name"] for b in s3.list_buckets()["Buckets"]]:
        raise AssertionError("the bucket is not listed")
    location = s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"]
    if location not in (None, "", "us-east-1"):
        raise AssertionError("location %r" % location)


@check("create_bucket again is BucketAlreadyOwnedByYou, or nothing")
def _():
    try:
        s3.create_bucket(Bucket=BUCKET)
    except botocore.exceptions.ClientError as e:
        equal(e.response["Error"]["Code"], "BucketAlreadyOwnedByYou", "code")


@check("bad bucket names are InvalidBucketName")
def _():
    for name in ("Upper-Case", "ab", "under_score", "192.168.5.4", "a" * 64, "dot..dot", "-dash"):
        try:
            refused("InvalidBucketName", s3.create_bucket, Bucket=name, status=400)
        except AssertionError as e:
            s3.delete_bucket(Bucket=name)
            raise AssertionError("%s: %s" % (name, e))


@check("unknown bucket is NoSuchBucket")
def _():
    missing = BUCKET + "-not"
    refused("NoSuchBucket", s3.get_object, Bucket=missing, Key="x", status=404)
    refused("NoSuchBucket", s3.put_object, Bucket=missing, Key="x", Body=b"x", status=404)
    refused("NoSuchBucket", s3.list_objects_v2, Bucket=missing, status=404)
    refused("NoSuchBucket", s3.delete_bucket, Bucket=missing, status=404)
    refused("404|NoSuchBucket", s3.head_bucket, Bucket=missing, status=404)


# ---- objects ----

def copy_file(path):
    def run():
        key, back = "files/" + os.path.basename(path), os.path.join(SCRATCH, "boto3-back.bin")
        try:
            s3.upload_file(path, BUCKET, key)
            equal(s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"], os.path.getsize(path), "length")
            s3.download_file(BUCKET, key, back)
            equal(sha256(back), sha256(path), "sha256")
        finally:
            if os.path.exists(back):
                os.remove(back)
            s3.delete_object(Bucket=BUCKET, Key=key)
    return run


for _path in FILES:
    CHECKS.append(("upload_file and download_file of %d bytes" % os.path.getsize(_path), copy_file(_path)))


@check("put_object and get_object: ETag, metadata, headers")
def _():
    body = os.urandom(70000)
    etag = put("plain", body, ContentType="text/x-test", CacheControl="no-cache", Metadata={"colour": "grey", "n": "1"})["ETag"]
    equal(etag, '"%s"' % hashlib.md5(body).hexdigest(), "ETag")
    answer = s3.get_object(Bucket=BUCKET, Key="plain")
    equal(answer["Body"].read(), body, "body")
    for name, want in (("ETag", etag), ("ContentType", "text/x-test"), ("CacheControl", "no-cache"),
                       ("Metadata", {"colour": "grey", "n": "1"}), ("ContentLength", 70000), ("AcceptRanges", "bytes")):
        equal(answer[name], want, name)
    age = datetime.datetime.now(datetime.timezone.utc) - answer["LastModified"]
    if abs(age.total_seconds()) > 600:
        raise AssertionError("LastModified is %s" % answer["LastModified"])
    answer = s3.get_object(Bucket=BUCKET, Key="plain", ResponseContentType="a/b")
    equal(answer["ContentType"], "a/b", "overridden type")


@check("overwriting replaces, deleting twice is no error")
def _():
    put("twice", b"one")
    put("twice", b"number two")
    equal(get("twice"), b"number two")
    for _ in range(2):
        s3.delete_object(Bucket=BUCKET, Key="twice")
    absent("twice")


@check("ranges")
def _():
    body = bytes(range(256)) * 40
    put("range", body)
    for text, want in (("bytes=0-0", body[:1]), ("bytes=10-19", body[10:20]), ("bytes=10000-", body[10000:]),
                       ("bytes=-7", body[-7:]), ("bytes=10-99999", body[10:]), ("bytes=-99999", body)):
        equal(get("range", Range=text), want, text)
    equal(s3.get_object(Bucket=BUCKET, Key="range", Range="bytes=5-6")["ContentRange"], "bytes 5-6/10240", "ContentRange")
    refused("InvalidRange", s3.get_object, Bucket=BUCKET, Key="range", Range="bytes=10240-", status=416)


@check("odd keys go in, are listed and come back")
def _():
    for key in ODD:
        put("odd/" + key, key.encode())
    listed = [o["Key"] for o in s3.list_objects_v2(Bucket=BUCKET, Prefix="odd/")["Contents"]]
    equal(listed, sorted(("odd/" + k for k in ODD), key=lambda k: k.encode()), "listing")
    for key in ODD:
        equal(get("odd/" + key), key.encode(), key)


@check("conditions: If-Match, If-None-Match, If-Modified-Since")
def _():
    etag = put("condition", b"one")["ETag"]
    equal(get("condition", IfMatch=etag), b"one")
    refused("PreconditionFailed", s3.get_object, Bucket=BUCKET, Key="condition", IfMatch='"0"', status=412)
    refused("304|NotModified", s3.get_object, Bucket=BUCKET, Key="condition", IfNoneMatch=etag, status=304)
    later = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=-1)
    time.sleep(1.1)
    refused("304|NotModified", s3.get_object, Bucket=BUCKET, Key="condition", IfModifiedSince=later, status=304)


@check("put_object with If-None-Match: * writes once")
def _():
    c = client()
    c.meta.events.register("before-call.s3.PutObject", lambda params, **_: params["headers"].__setitem__("If-None-Match", "*"))
    c.put_object(Bucket=BUCKET, Key="once", Body=b"first")
    refused("PreconditionFailed", c.put_object, Bucket=BUCKET, Key="once", Body=b"second", status=412)
    equal(get("once"), b"first")


@check("checksums are kept and given back")
def _():
    import base64
    import zlib
    body = os.urandom(5000)
    put("sum-sha256", body, ChecksumAlgorithm="SHA256")
    put("sum-crc32", body, ChecksumAlgorithm="CRC32")
    answer = s3.head_object(Bucket=BUCKET, Key="sum-sha256", ChecksumMode="ENABLED")
    equal(answer.get("ChecksumSHA256"), base64.b64encode(hashlib.sha256(body).digest()).decode(), "SHA-256")
    answer = s3.get_object(Bucket=BUCKET, Key="sum-crc32", ChecksumMode="ENABLED")
    equal(answer.get("ChecksumCRC32"), base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode(), "CRC32")
    equal(answer["Body"].read(), body, "body")


@check("copy_object: metadata kept and replaced, onto itself, with conditions")
def _():
    put("from/ü +", b"to copy", Metadata={"a": "1"}, ContentType="text/x-a")
    source = {"Bucket": BUCKET, "Key": "from/ü +"}
    s3.copy_object(Bucket=BUCKET, Key="kept", CopySource=source)
    answer = s3.get_object(Bucket=BUCKET, Key="kept")
    equal((answer["Body"].read(), answer["Metadata"], answer["ContentType"]), (b"to copy", {"a": "1"}, "text/x-a"))
    s3.copy_object(Bucket=BUCKET, Key="replaced", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    equal(s3.head_object(Bucket=BUCKET, Key="replaced")["Metadata"], {"b": "2"}, "metadata")
    s3.copy_object(Bucket=BUCKET, Key="kept", CopySource={"Bucket": BUCKET, "Key": "kept"}, MetadataDirective="REPLACE", Metadata={"c": "3"})
    equal((get("kept"), s3.head_object(Bucket=BUCKET, Key="kept")["Metadata"]), (b"to copy", {"c": "3"}))
    refused("InvalidRequest", s3.copy_object, Bucket=BUCKET, Key="kept", CopySource={"Bucket": BUCKET, "Key": "kept"})
    refused("PreconditionFailed", s3.copy_object, Bucket=BUCKET, Key="x", CopySource=source, CopySourceIfMatch='"0"', status=412)
    refused("NoSuchKey", s3.copy_object, Bucket=BUCKET, Key="x", CopySource={"Bucket": BUCKET, "Key": "no"}, status=404)


@check("copy of a large object by parts")
def _():
    body = os.urandom(12 * MIB)
    put("large", body)
    s3.copy({"Bucket": BUCKET, "Key": "large"}, BUCKET, "large-copy",
            Config=TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB))
    equal(hashlib.sha256(get("large-copy")).hexdigest(), hashlib.sha256(body).hexdigest(), "sha256")


@check("delete_objects: 1,000 at once, unknown keys, quiet")
def _():
    keys = ["del/%03d" % n for n in range(20)]
    for key in keys:
        put(key, b"x")
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "del/%03d" % n} for n in range(1000)]})
    equal(sorted(d["Key"] for d in answer["Deleted"]), ["del/%03d" % n for n in range(1000)], "deleted")
    equal(s3.list_objects_v2(Bucket=BUCKET, Prefix="del/")["KeyCount"], 0, "left")
    put("del/a", b"x")
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Quiet": True, "Objects": [{"Key": "del/a"}, {"Key": "del/no"}]})
    equal((answer.get("Deleted"), answer.get("Errors")), (None, None))
    absent("del/a")


# ---- listing ----

@check("list paginators, V1 and V2, with prefix, delimiter and start-after")
def _():
    keys = sorted(["list/%02d/%s" % (a, b) for a in range(5) for b in "xyz"] + ["list/top%d" % n for n in range(4)] + ["list/00"])
    for key in keys:
        put(key, b"")
    for operation in ("list_objects_v2", "list_objects"):
        for size in (1, 3, 7, 1000):
            pages = s3.get_paginator(operation).paginate(Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": size})
            equal([o["Key"] for p in pages for o in p.get("Contents", [])], keys, "%s by %d" % (operation, size))
            pages = list(s3.get_paginator(operation).paginate(Bucket=BUCKET, Prefix="list/", Delimiter="/", PaginationConfig={"PageSize": size}))
            equal([p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])], ["list/%02d/" % a for a in range(5)], "prefixes by %d" % size)
            equal([o["Key"] for p in pages for o in p.get("Contents", [])], ["list/00"] + ["list/top%d" % n for n in range(4)], "keys by %d" % size)
    answer = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", StartAfter="list/04/y")
    equal([o["Key"] for o in answer["Contents"]], ["list/04/z"] + ["list/top%d" % n for n in range(4)], "after")
    answer = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", MaxKeys=2, FetchOwner=True)
    equal((answer["KeyCount"], answer["MaxKeys"], answer["IsTruncated"], "Owner" in answer["Contents"][0]), (2, 2, True, True))
    equal(s3.list_objects_v2(Bucket=BUCKET, Prefix="no such prefix")["KeyCount"], 0, "count")


# ---- multipart ----

@check("multipart by the transfer manager, ETag of the parts")
def _():
    body = os.urandom(17 * MIB)
    s3.upload_fileobj(io.BytesIO(body), BUCKET, "parts",
                      Config=TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB))
    sums = b"".join(hashlib.md5(body[n:n + 5 * MIB]).digest() for n in range(0, len(body), 5 * MIB))
    equal(s3.head_object(Bucket=BUCKET, Key="parts")["ETag"], '"%s-4"' % hashlib.md5(sums).hexdigest(), "ETag")
    equal(hashlib.sha256(get("parts")).hexdigest(), hashlib.sha256(body).hexdigest(), "sha256")
    equal(get("parts", Range="bytes=5242870-5242889"), body[5242870:5242890], "range across parts")
    equal(len(get("parts", PartNumber=4)), 2 * MIB, "part 4")


@check("multipart by hand: list_parts, list_multipart_uploads, overwrite of a part, complete")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="hand", Metadata={"m": "1"})["UploadId"]
    one, two, wrong = os.urandom(5 * MIB), b"tail", os.urandom(5 * MIB)

    def part(number, body):
        return s3.upload_part(Bucket=BUCKET, Key="hand", UploadId=upload, PartNumber=number, Body=body)["ETag"]
    part(1, wrong)
    tags = {1: part(1, one), 7: part(7, two)}
    listed = s3.list_parts(Bucket=BUCKET, Key="hand", UploadId=upload)["Parts"]
    equal([(p["PartNumber"], p["Size"], p["ETag"]) for p in listed], [(1, 5 * MIB, tags[1]), (7, 4, tags[7])], "parts")
    uploads = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="hand")["Uploads"]
    equal([(u["Key"], u["UploadId"]) for u in uploads], [("hand", upload)], "uploads")
    absent("hand")

    def complete(*parts):
        return s3.complete_multipart_upload(Bucket=BUCKET, Key="hand", UploadId=upload, MultipartUpload={
            "Parts": [{"PartNumber": n, "ETag": t} for n, t in parts]})
    refused("InvalidPartOrder", complete, (7, tags[7]), (1, tags[1]), status=400)
    refused("InvalidPart", complete, (1, tags[1]), (2, tags[7]), status=400)
    refused("InvalidPart", complete, (1, tags[7]), (7, tags[7]), status=400)
    complete((1, tags[1]), (7, tags[7]))
    equal(get("hand"), one + two, "body")
    equal(s3.head_object(Bucket=BUCKET, Key="hand")["Metadata"], {"m": "1"}, "metadata")


@check("multipart refusals: EntityTooSmall, NoSuchUpload, abort")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="small")["UploadId"]
    tags = [s3.upload_part(Bucket=BUCKET, Key="small", UploadId=upload, PartNumber=n, Body=b"tiny")["ETag"] for n in (1, 2)]
    refused("EntityTooSmall", s3.complete_multipart_upload, Bucket=BUCKET, Key="small", UploadId=upload, status=400,
            MultipartUpload={"Parts": [{"PartNumber": n + 1, "ETag": t} for n, t in enumerate(tags)]})
    refused("NoSuchUpload", s3.upload_part, Bucket=BUCKET, Key="other", UploadId=upload, PartNumber=1, Body=b"x", status=404)
    s3.abort_multipart_upload(Bucket=BUCKET, Key="small", UploadId=upload)
    refused("NoSuchUpload", s3.list_parts, Bucket=BUCKET, Key="small", UploadId=upload, status=404)
    absent("small")


# ---- presigned ----

@check("presigned PUT and GET")
def _():
    body = os.urandom(300000)
    url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "pre signed/ü"}, ExpiresIn=300)
    equal(send("PUT", url, body)[0], 200, "PUT")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "pre signed/ü"}, ExpiresIn=300)
    equal(send("GET", url), (200, body), "GET")
    status, answer = send("GET", url.replace("pre%20signed", "presigned"))
    equal((status, code_of(answer)), (403, "SignatureDoesNotMatch"), "another key")
    equal(send("DELETE", url)[0], 403, "another method")


@check("a presigned URL expires with AccessDenied")
def _():
    put("expires", b"x")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "expires"}, ExpiresIn=1)
    time.sleep(2.2)
    status, answer = send("GET", url)
    equal((status, code_of(answer)), (403, "AccessDenied"))


# ---- refusals ----

@check("unknown key is NoSuchKey")
def _():
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key="no/such", status=404)
    refused("404", s3.head_object, Bucket=BUCKET, Key="no/such", status=404)


@check("a key of 1,024 bytes is stored, one of 1,025 is KeyTooLongError")
def _():
    put("k" * 1024, b"long")
    equal(get("k" * 1024), b"long")
    refused("KeyTooLongError", s3.put_object, Bucket=BUCKET, Key="k" * 1025, Body=b"x", status=400)


@check("wrong secret is SignatureDoesNotMatch, unknown access key is InvalidAccessKeyId")
def _():
    refused("SignatureDoesNotMatch", client(secret=SECRET + "x").put_object, Bucket=BUCKET, Key="bad", Body=b"x", status=403)
    refused("InvalidAccessKeyId", client(access="AKIDOESNOTEXIST00000").put_object, Bucket=BUCKET, Key="bad", Body=b"x", status=403)
    status, answer = send("GET", ENDPOINT.rstrip("/") + "/" + BUCKET + "/plain")
    equal((status, code_of(answer)), (403, "AccessDenied"), "anonymous")
    absent("bad")


@check("a clock off by 20 minutes is RequestTimeTooSkewed")
def _():
    now = datetime.datetime.now(datetime.timezone.utc)
    for minutes in (-20, 20):
        refused_by_hand("RequestTimeTooSkewed", 403, "PUT", "bad", b"x", when=now + datetime.timedelta(minutes=minutes))
    absent("bad")
    equal(by_hand("PUT", "good", b"x")[0], 200, "the same request in time")


@check("bad digests: BadDigest, InvalidDigest, XAmzContentSHA256Mismatch, nothing stored")
def _():
    refused("BadDigest", s3.put_object, Bucket=BUCKET, Key="bad", Body=b"x" * 1000, ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==", status=400)
    refused("InvalidDigest", s3.put_object, Bucket=BUCKET, Key="bad", Body=b"x", ContentMD5="not base64", status=400)
    refused_by_hand("XAmzContentSHA256Mismatch", 400, "PUT", "bad", b"x" * 1000, payload=hashlib.sha256(b"y").hexdigest())
    refused_by_hand("BadDigest", 400, "PUT", "bad", b"x" * 1000, extra={"x-amz-checksum-crc32": "AAAAAA=="})
    absent("bad")


@check("a truncated body is refused, nothing stored")
def _():
    url = urllib.parse.urlsplit(ENDPOINT)
    if url.scheme != "http":
        return
    for length, sent in ((1000, 500), (3 * MIB, 2 * MIB + 17), (40 * MIB, 33 * MIB)):
        body = os.urandom(length)
        path, headers = signed_request("PUT", "truncated", body, payload="UNSIGNED-PAYLOAD")
        head = "PUT %s HTTP/1.1\r\ncontent-length: %d\r\n" % (path, length) + "".join("%s: %s\r\n" % h for h in headers.items())
        with socket.create_connection((url.hostname, url.port or 80), timeout=60) as c:
            c.sendall(head.encode() + b"\r\n" + body[:sent])
            c.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                for part in iter(lambda: c.recv(65536), b""):
                    answer += part
            except ConnectionResetError:
                pass  # no answer is an answer, too: the request was not whole
        if answer and answer[9:12] != b"400":
            raise AssertionError("answer to %d of %d bytes: %r" % (sent, length, answer[:200]))
        absent("truncated")


@check("delete_bucket that is not empty is BucketNotEmpty")
def _():
    put("plain", b"x")
    refused("BucketNotEmpty", s3.delete_bucket, Bucket=BUCKET, status=409)


# ---- a tree ----

@check("a tree goes up, is listed and comes down the same")
def _():
    names = sorted((os.path.relpath(os.path.join(d, f), TREE) for d, _, fs in os.walk(TREE) for f in fs), key=lambda n: n.encode())

    def up(name):
        with open(os.path.join(TREE, name), "rb") as f:
            put("tree/" + name, f.read())

    def down(name):
        with open(os.path.join(TREE, name), "rb") as f:
            equal(get("tree/" + name), f.read(), name)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(up, names))
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="tree/")
        equal([o["Key"][5:] for p in pages for o in p["Contents"]], names, "listing")
        list(pool.map(down, names))


@check("emptying the bucket with delete_objects, delete_bucket")
def _():
    empty()
    s3.delete_bucket(Bucket=BUCKET)
    refused("404|NoSuchBucket", s3.head_bucket, Bucket=BUCKET)


def empty():
    for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        keys = [{"Key": o["Key"]} for o in page.get("Contents", [])]
        if keys:
            answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys, "Quiet": True})
            equal(answer.get("Errors"), None, "errors")


def main():
    try:
        for name, function in CHECKS:
            try:
                function()
                print("ok " + name)
            except Exception as e:  # a check may fail in any way; the next one goes on
                print("FAILED %s\t%s" % (name, " ".join(("%s: %s" % (type(e).__name__, e)).split())[:500]))
        print("finished")
    finally:  # also after an interrupt
        try:
            empty()
            s3.delete_bucket(Bucket=BUCKET)
        except botocore.exceptions.BotoCoreError:
            pass  # no endpoint any more
        except botocore.exceptions.ClientError:
            pass  # it is gone already, which is how it should be


main()
