/**
 * Who answers `Expect: 100-continue`. Node would say "go on" by itself, and a refused upload would be sent in full
 * first. Here uploads decide when they want the body; everything else is told to go on at once.
 */
import type { IncomingMessage, RequestListener, Server } from 'node:http'
import { factsOf } from './request-facts.ts'

export function answerExpectations(
  server: Server,
  handlers: {
    decidesItself: (req: IncomingMessage) => boolean
    onRequest: RequestListener
    onUnknown: RequestListener
  },
): void {
  server.on('checkContinue', (req, res) => {
    if (handlers.decidesItself(req)) factsOf(req).expectsContinue = true
    else res.writeContinue()
    handlers.onRequest(req, res)
  })
  server.on('checkExpectation', handlers.onUnknown)
}
