// tus 1.0.0, termination. Row numbers are those of docs/protocol.md.

import { readdir } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { bytesAt, startSite } from './exchange.ts'

it('row 40: DELETE -> 204, afterwards HEAD, PATCH, GET and DELETE -> 404, nothing is left', async () => {
  const site = await startSite()
  const url = await site.create(6)
  await site.append(url, 0, 'abc')
  expect(await site.send('DELETE', url)).toMatchObject({ status: 204 })
  expect(await site.shown(url)).toBe('404')
  expect(await site.append(url, 3, 'def')).toMatchObject({ status: 404 })
  expect(await site.send('GET', url)).toMatchObject({ status: 404 })
  expect(await site.send('DELETE', url)).toMatchObject({ status: 404 })
  expect(await readdir(site.folder)).toEqual([])
})

it('row 40: DELETE of an unknown upload, or of the creation URL -> 404', async () => {
  const site = await startSite()
  expect(await site.send('DELETE', '/files/none')).toMatchObject({ status: 404 })
  expect(await site.send('DELETE', '/files')).toMatchObject({ status: 404 })
  expect(await site.send('DELETE', '/files/')).toMatchObject({ status: 404 })
})

it('row 40: DELETE while a PATCH is running -> the PATCH is stopped first, then 204', async () => {
  const site = await startSite()
  const url = await site.create(6)
  const holder = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 6, Expect: '100-continue' }))
  await holder.continued
  holder.write('abc')
  expect(await site.send('DELETE', url)).toMatchObject({ status: 204 })
  expect(await holder.answer).toMatchObject({ status: 423 })
  expect(await site.shown(url)).toBe('404')
  expect(await readdir(site.folder)).toEqual([])
})

it('row 41: DELETE of a finished upload -> 204', async () => {
  const site = await startSite()
  const url = await site.createFinished('abc')
  expect(await site.send('DELETE', url)).toMatchObject({ status: 204 })
  expect(await site.shown(url)).toBe('404')
})

it('row 41: DELETE where termination is switched off -> 403, nothing removed', async () => {
  const site = await startSite({ disableTermination: true })
  const url = await site.create(6)
  expect(await site.send('DELETE', url)).toMatchObject({ status: 403 })
  expect(await site.shown(url)).toBe('0/6')
})

it('row 41: DELETE of a finished upload where only that is switched off -> 403, of an unfinished one 204', async () => {
  const site = await startSite({ disableTerminationForFinishedUploads: true })
  const finished = await site.createFinished('abc')
  expect(await site.send('DELETE', finished)).toMatchObject({ status: 403 })
  expect(await site.shown(finished)).toBe('3/3')
  expect(await site.send('DELETE', await site.create(6))).toMatchObject({ status: 204 })
})

it('GET of an upload that is terminated before its file is opened -> 404, not a failure', async () => {
  const site = await startSite()
  const url = await site.createFinished('abc')
  const { bytes } = site.server.engine
  const read = bytes.read.bind(bytes)
  bytes.read = async (record, start, end) => {
    await bytes.remove(record.head.id)
    return read(record, start, end)
  }
  expect(await site.send('GET', url)).toMatchObject({ status: 404 })
  expect(site.reports).toEqual([])
})
