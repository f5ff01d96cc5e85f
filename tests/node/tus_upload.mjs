// Uploads a file with tus-js-client. Arguments: {endpoint, file, token, metadata?, parallelUploads?, chunkSize?, uploadUrl?}.
// Prints a line of JSON per event: {event: "created" | "progress" | "success" | "error", …}.
import { createReadStream, statSync } from 'node:fs';
import { Upload } from 'tus-js-client';

const options = JSON.parse(process.argv[2]);
const say = (event, more = {}) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');
const upload = new Upload(createReadStream(options.file), {
  endpoint: options.endpoint,
  uploadUrl: options.uploadUrl ?? null,
  ...(options.parallelUploads > 1 ? {} : { uploadSize: statSync(options.file).size }),
  chunkSize: options.chunkSize ?? Infinity,
  parallelUploads: options.parallelUploads ?? 1,
  retryDelays: options.retryDelays ?? [0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000],
  headers: { authorization: `Bearer ${options.token}` },
  metadata: options.metadata ?? {},
  removeFingerprintOnSuccess: true,
  onUploadUrlAvailable: () => say('created', { url: upload.url }),
  onProgress: (sent, total) => say('progress', { sent, total }),
  onAfterResponse: (request, response) => {
    const asset = response.getHeader('StreamGate-Asset');
    if (asset) say('asset', { asset });
  },
  onSuccess: () => say('success', { url: upload.url }),
  onError: (error) => {
    say('error', { message: String(error.message ?? error), status: error.originalResponse?.getStatus() ?? null });
    process.exitCode = 1;
  },
});
upload.start();
