/** An append to a finished upload, at its end: nothing to do, unless the body turns out to hold something. */
import type { UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { AppendCommand, Outcome } from '../protocol/messages.ts'
import { Receiver } from './byte-path.ts'
import type { HoldContext } from './hold.ts'
import type { UploadRequest } from './upload-request.ts'

export async function appendNothing(
  { settings, pulse }: Pick<HoldContext, 'settings' | 'pulse'>,
  record: UploadRecord,
  { contentLength }: AppendCommand,
  request: UploadRequest,
): Promise<Outcome> {
  if (contentLength === undefined) {
    const { offset } = record.mark
    const { idleMs, leastBytesPerSecond } = settings
    const source = request.body()
    const write = async () => {}
    const limits = { endLimit: offset, idleMs, leastBytesPerSecond }
    const { why } = await new Receiver({ source, pulse, offset, write, ...limits }).done
    if (why === 'overflow') return { is: 'refused', refusal: new Refusal('body-too-long', { offset }) }
    if (why === 'client-gone' || why === 'idle') return { is: 'cut', record, why }
  }
  return { is: 'appended', record, expiresAt: undefined }
}
