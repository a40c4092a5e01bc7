/** What the host asks of whatever receives uploads. The host knows paths and sockets, the room knows uploads. */
import type { IncomingMessage, ServerResponse } from 'node:http'

export interface UploadRoom {
  /**
   * Answers a request whose path is the base path or below it; `req.url` is as the client sent it. When the facts of
   * the request say `expectsContinue`, the client waits for `res.writeContinue()` before it sends the body.
   */
  handle(req: IncomingMessage, res: ServerResponse): Promise<void>
  /** Throws a sentence when uploads can not be received now. */
  checkReady(): Promise<void>
  /** Asks running requests to stop and takes no new data. Resolves when none is running. */
  drain(): Promise<void>
  /** Gives everything back that the room holds. Called once, after the last request has ended. */
  close(): Promise<void>
}
