// tus 1.0.0, creation-defer-length. Row numbers are those of docs/protocol.md.

import { expect, it } from 'vitest'
import { bytesAt, bytesType, pathOf, startSite } from './exchange.ts'

it('row 28: POST with Upload-Defer-Length: 1 -> 201, HEAD says so and no Upload-Length', async () => {
  const site = await startSite()
  const answer = await site.send('POST', '/files', { 'Upload-Defer-Length': 1 })
  expect(answer.status).toBe(201)
  const { headers } = await site.head(pathOf(answer))
  expect(headers).toMatchObject({ 'upload-offset': '0', 'upload-defer-length': '1' })
  expect(headers).not.toHaveProperty('upload-length')
})

it('row 28: a PATCH without Upload-Length -> 204, the length stays open', async () => {
  const site = await startSite()
  const url = await site.create('deferred')
  expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
  expect(await site.shown(url)).toBe('3/?')
})

it('row 28: a PATCH with Upload-Length -> 204, HEAD says Upload-Length from then on', async () => {
  const site = await startSite()
  const url = await site.create('deferred')
  expect(await site.append(url, 0, 'abc', { 'Upload-Length': 6 })).toMatchObject({ status: 204 })
  const { headers } = await site.head(url)
  expect(headers).toMatchObject({ 'upload-offset': '3', 'upload-length': '6' })
  expect(headers).not.toHaveProperty('upload-defer-length')
})

it('row 28: a PATCH that brings the length and the last bytes -> 204, finished', async () => {
  const site = await startSite()
  const url = await site.create('deferred', bytesType, 'abc')
  expect(await site.append(url, 3, 'def', { 'Upload-Length': 6 })).toMatchObject({ status: 204 })
  expect((await site.send('GET', url)).text).toBe('abcdef')
})

it('row 28: a PATCH that brings only the length -> 204', async () => {
  const site = await startSite()
  const url = await site.create('deferred')
  await site.append(url, 0, 'abc')
  expect(await site.append(url, 3, '', { 'Upload-Length': 6 })).toMatchObject({ status: 204 })
  expect(await site.shown(url)).toBe('3/6')
})

it('row 28: a PATCH that brings only the length, equal to the offset -> 204, finished', async () => {
  const site = await startSite()
  const url = await site.create('deferred')
  await site.append(url, 0, 'abc')
  expect(await site.append(url, 3, '', { 'Upload-Length': 3 })).toMatchObject({
    status: 204,
    headers: { 'upload-offset': '3' },
  })
  expect((await site.send('GET', url)).text).toBe('abc')
})

it('row 28: another length than the fixed one -> 400, the same one again -> 204', async () => {
  const site = await startSite()
  const url = await site.create('deferred')
  await site.append(url, 0, 'abc', { 'Upload-Length': 6 })
  expect(await site.append(url, 3, 'd', { 'Upload-Length': 7 })).toMatchObject({ status: 400 })
  expect(await site.shown(url)).toBe('3/6')
  expect(await site.append(url, 3, 'd', { 'Upload-Length': 6 })).toMatchObject({ status: 204 })
  expect(await site.shown(url)).toBe('4/6')
})

for (const length of ['2', '-1', '3.5', 'x', ''])
  it(`row 28: Upload-Length ${JSON.stringify(length)} at offset 3 -> 400, the length stays open`, async () => {
    const site = await startSite()
    const url = await site.create('deferred', bytesType, 'abc')
    expect(await site.append(url, 3, '', { 'Upload-Length': length })).toMatchObject({ status: 400 })
    expect(await site.shown(url)).toBe('3/?')
  })

it('row 28: a length above the limit -> 413, the length stays open', async () => {
  const site = await startSite({ maxSize: 6 })
  const url = await site.create('deferred')
  expect(await site.append(url, 0, 'abc', { 'Upload-Length': 7 })).toMatchObject({ status: 413 })
  expect(await site.shown(url)).toBe('0/?')
})

it('row 28: more bytes than the limit while the length is open -> 413, before a byte is read where it is known', async () => {
  const site = await startSite({ maxSize: 6 })
  const url = await site.create('deferred')
  const known = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 7 }))
  expect(await known.answer).toMatchObject({ status: 413 })
  const chunked = site.open('PATCH', url, bytesAt(0, { 'Transfer-Encoding': 'chunked' }))
  chunked.chunk('abcdefg')
  expect(await chunked.answer).toMatchObject({ status: 413 })
  expect(await site.shown(url)).toBe('0/?')
})

it('row 28: a chunked body that overflows the length it brought -> 413, the length stays open', async () => {
  const site = await startSite()
  const url = await site.create('deferred')
  const headers = bytesAt(0, { 'Transfer-Encoding': 'chunked', 'Upload-Length': 3 })
  const request = site.open('PATCH', url, headers)
  request.chunk('abcd')
  expect(await request.answer).toMatchObject({ status: 413 })
  expect(await site.shown(url)).toBe('0/?')
})

it('row 28: a connection cut in the PATCH that brings the length -> the length is kept', async () => {
  const site = await startSite()
  const url = await site.create('deferred')
  const headers = { 'Content-Length': 6, 'Upload-Length': 6, Expect: '100-continue' }
  const request = site.open('PATCH', url, bytesAt(0, headers))
  await request.continued
  request.write('abc')
  request.cut()
  await request.closed
  expect(await site.shown(url)).toBe('3/6')
})
