/**
 * The one table of refusals: what a client, a log line and a metric are told, alike.
 * Codes never change; callers branch on them. Sentences say what was wrong and what is wanted, and never a path.
 */
export const errorTable = {
  // Who asks
  unauthorized: [401, 'sign in: send "Authorization: Bearer" with a token'],
  forbidden: [403, 'this token may not do that'],
  'type-refused': [415, 'files of this type are not accepted here'],

  // The request itself
  'version-missing': [
    412,
    'Tus-Resumable is missing; this server speaks tus 1.0.0: send "Tus-Resumable: 1.0.0"',
  ],
  'version-unsupported': [412, 'this Tus-Resumable version is not supported; this server speaks tus 1.0.0'],
  'method-unknown': [405, 'this method is not known here; use OPTIONS, POST, HEAD, PATCH, GET or DELETE'],
  'content-type': [415, 'the body must have Content-Type: application/offset+octet-stream'],
  'coding-unknown': [400, 'the only Transfer-Encoding that is known here is chunked'],
  'offset-invalid': [400, 'Upload-Offset must be a whole number from 0 to 9007199254740991'],
  'length-invalid': [400, 'Upload-Length must be a whole number from 0 to 9007199254740991'],
  'length-missing': [400, 'send either Upload-Length with the size in bytes, or Upload-Defer-Length: 1'],
  'length-twice': [400, 'send Upload-Length or Upload-Defer-Length, not both'],
  'defer-length-invalid': [400, 'Upload-Defer-Length can only be 1'],
  'length-fixed': [400, 'the length of this upload is already fixed, to another value'],
  'length-below-offset': [400, 'Upload-Length is less than what was already received'],
  'metadata-invalid': [
    400,
    'Upload-Metadata must be comma-separated pairs of an ASCII key, unique and without spaces, and a base64 value',
  ],
  'metadata-too-large': [431, 'Upload-Metadata is longer than the 112 KiB that are kept here'],
  'defer-length-unsupported': [
    400,
    'the store of this server must know the length at the creation: send Upload-Length with the size in bytes',
  ],
  'concat-invalid': [
    400,
    'Upload-Concat must be "partial", or "final;" and the URLs of the parts, separated by spaces, in the order of their bytes',
  ],
  'concat-too-many': [400, 'a final upload can have 1000 parts at most'],
  'concat-length': [400, 'a final upload has the length of its parts; send no Upload-Length'],
  'concat-body': [403, 'a final upload takes no bytes of its own; send none'],
  'part-unknown': [400, 'a part of this final upload is not there'],
  'part-not-partial': [400, 'a part of this final upload was not created with "Upload-Concat: partial"'],
  'header-unsupported': [400, 'this server does not support that header for this store'],
  'checksum-malformed': [
    400,
    'Upload-Checksum must be an algorithm, one space, and the base64 of its digest of the bytes in this request',
  ],
  'checksum-algorithm': [400, 'this checksum algorithm is not known here; OPTIONS tells which are'],
  'checksum-mismatch': [460, 'the checksum does not match; nothing of this request was kept, send it again'],
  'checksum-missing': [460, 'the announced checksum did not come; nothing of this request was kept'],
  'digest-malformed': [
    400,
    'Repr-Digest must be a list such as sha-256=:BASE64:, and the metadata sha256 a SHA-256 in hex or base64',
  ],
  'digest-mismatch': [
    460,
    'the bytes are not those that the digest of this upload was made of; nothing is kept, begin a new one',
  ],
  'id-invalid': [400, 'that upload id can not be used'],

  // Plain forms and plain PUT
  'method-plain': [405, 'this method is not known here'],
  'name-invalid': [
    400,
    'a file name must have 1 to 255 bytes in UTF-8, no slashes and no control characters, and not be . or ..',
  ],
  'name-unknown': [404, 'there is no finished upload of this name'],
  'range-invalid': [
    400,
    'Content-Range must be "bytes first-last/size", with the size in bytes or * where it is not known yet',
  ],
  'range-length': [400, 'the body is not as long as its Content-Range says'],
  'range-conflict': [409, 'Content-Range does not go on where the upload stands; ask with HEAD'],
  'content-encoded': [415, 'send the file as it is, without a Content-Encoding'],
  'form-type': [415, 'a form with files must be sent as multipart/form-data, with its boundary'],
  'form-malformed': [400, 'this form can not be understood'],
  'form-cut': [400, 'the form ended before its last boundary; what came is kept: send the same form again'],
  'form-empty': [400, 'there is no file in this form'],
  'form-large': [413, 'this form has more parts, or longer fields, than are accepted here'],
  'origin-refused': [403, 'pages of that site may not send forms to this server'],

  // What is refused before a room of ours sees it
  'headers-too-large': [431, 'the headers of this request are more than the 128 KiB that are taken here'],
  'request-malformed': [400, 'this is not a request that can be understood'],
  'request-slow': [408, 'the headers of this request took too long'],
  'host-unclear': [400, 'a request must have exactly one Host header'],
  'url-invalid': [400, 'the URL of this request can not be decoded'],
  'route-unknown': [404, 'there is nothing here'],
  'expectation-unknown': [417, 'the only expectation that is known here is 100-continue'],

  // The upload
  'not-found': [404, 'there is no such upload'],
  gone: [410, 'this upload is gone; begin a new one'],
  'offset-conflict': [409, 'Upload-Offset does not match; ask with HEAD and go on from there'],
  exists: [409, 'an upload with this id exists already'],
  'place-taken': [
    409,
    'another file is where the backend of this server wants this upload to be; nothing is replaced, try again',
  ],
  'too-large': [413, 'this is more than the largest upload that is accepted here'],
  'body-too-long': [413, 'the body is longer than what is left of the upload'],
  'termination-unsupported': [405, 'the store of this server can not terminate uploads'],
  'final-append': [403, 'a final upload is made of its parts; bytes can only be sent to them'],
  'part-needed': [409, 'a final upload that is not finished needs this part; terminate that one first'],
  'termination-disabled': [403, 'uploads can not be terminated here'],
  'download-disabled': [403, 'downloads are switched off here'],
  'finished-termination-disabled': [403, 'a finished upload can not be terminated here'],

  // What hooks say, where they do not say it in their own words
  'access-rejected': [403, 'this request was refused by the backend of this server'],
  'upload-rejected': [400, 'the upload was refused by the backend of this server'],
  'finish-rejected': [400, 'the finished upload was not accepted by the backend of this server'],
  'termination-rejected': [400, 'the backend of this server does not let this upload be terminated'],
  'upload-stopped': [400, 'the upload was stopped, and removed, by the backend of this server'],
  'hook-failed': [
    500,
    'the backend of this server could not be asked, or gave no answer that can be used; try again',
  ],

  // Lists and progress
  'query-invalid': [400, 'this can not be asked; docs/counting.md says what can'],
  'owner-needed': [
    403,
    'lists show the uploads of whoever asks, and who asks has none; name the uploads by ?id=',
  ],
  'lists-away': [503, 'lists can not be told right now; try again'],

  // Passing conditions
  displaced: [423, 'another request wants this upload; ask with HEAD and go on from there'],
  locked: [423, 'this upload is in use by another request; try again'],
  busy: [423, 'the state of this upload can not be told right now; try again'],
  unavailable: [503, 'new data is not accepted right now; try again'],
  'over-quota': [429, 'there is no room for another upload of yours right now; try again later'],
  'over-quota-append': [
    423,
    'there is no room for more of this upload right now; what came is kept, try again',
  ],
  full: [507, 'there is no room for more data; what came before is kept'],
  reserve: [507, 'there is no room for this on the disk; what came before is kept'],
  'body-cut': [400, 'the body ended before all of it was here; what came is kept'],
  'body-idle': [408, 'no data came for too long; what came is kept'],

  internal: [500, 'something went wrong here; what was acknowledged is kept'],
} as const satisfies Record<string, readonly [status: number, message: string]>

export type ErrorCode = keyof typeof errorTable

/** A refusal of one request. `offset` is the right `Upload-Offset`, where the client can use it. */
export class Refusal extends Error {
  readonly code: ErrorCode
  readonly status: number
  readonly offset: number | undefined
  readonly retryAfterS: number | undefined
  /** The upload that was created although the request was refused; its URL belongs into the answer. */
  readonly createdId: string | undefined
  /** The upload has all it needs: who is still sending is not heard out, but told to look. */
  readonly isFinished: boolean
  /** `WWW-Authenticate`: how to sign in, and what was wrong. */
  readonly challenge: string | undefined

  constructor(
    code: ErrorCode,
    more: {
      detail?: string
      offset?: number
      retryAfterS?: number
      createdId?: string
      isFinished?: boolean
      challenge?: string
      cause?: unknown
    } = {},
  ) {
    const [status, message] = errorTable[code]
    super(more.detail ?? message, { cause: more.cause })
    this.name = 'Refusal'
    this.code = code
    this.status = status
    this.offset = more.offset
    this.retryAfterS = more.retryAfterS
    this.createdId = more.createdId
    this.isFinished = more.isFinished ?? false
    this.challenge = more.challenge
  }
}
