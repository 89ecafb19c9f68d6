"""An object store of S3's kind for tests: moto on a port of this machine.

    store.py FOLDER

Makes the bucket `models` with all files below FOLDER, prints the address of the server, and then answers lines of the
standard input: `get KEY FILE` writes an object into a file, `put KEY FILE` the other way round, `sign KEY` prints an address
that grants access, `keys` prints all names, `uploads` how many unfinished ones there are. It ends where the input does.
"""

import sys
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "models"


def answer(store, words):
    match words:
        case ["get", key, file]:
            store.download_file(BUCKET, key, file)
            return "done"
        case ["put", key, file]:
            store.upload_file(file, BUCKET, key)
            return "done"
        case ["sign", key]:
            return store.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key})
        case ["keys"]:
            found = store.list_objects_v2(Bucket=BUCKET).get("Contents", [])
            return " ".join(entry["Key"] for entry in found)
        case ["uploads"]:
            return str(len(store.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])))
    raise ValueError(words)


def main(folder):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    store = boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="SECRET-OF-THE-TEST",
    )
    store.create_bucket(Bucket=BUCKET)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())
    print(address, flush=True)
    for line in sys.stdin:
        print(answer(store, line.split()), flush=True)
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
