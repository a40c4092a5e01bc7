# Uploads one file with tuspy and prints its URL. What was begun for the same file before is gone on with.
# Arguments: endpoint, file, file for the URLs, bytes per request, `checksum` or `plain`.

import sys

from tusclient.client import TusClient
from tusclient.storage import filestorage

endpoint, path, urls, chunk_size, mode = sys.argv[1:]
uploader = TusClient(endpoint, headers={"X-Client": "tuspy"}).uploader(
    path,
    chunk_size=int(chunk_size),
    metadata={"filename": "mär chen.txt", "filetype": "text/plain", "empty": ""},
    retries=20,
    retry_delay=1,
    upload_checksum=mode == "checksum",
    store_url=True,
    url_storage=filestorage.FileStorage(urls),
)
print("begins at", uploader.offset, flush=True)
uploader.upload()
print(uploader.url, flush=True)
