/** How much a request may say before its body. Metadata and concatenations travel in headers; Node's own limit is 16 KiB. */
export const maxHeaderBytes = 128 * 1024
