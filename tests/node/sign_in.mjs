// Signs in with viem, as a wallet would. Arguments: {url, key, chainId}. Prints the session's tokens as JSON.
import { privateKeyToAccount } from 'viem/accounts';
import { parseSiweMessage, validateSiweMessage } from 'viem/siwe';

const { url, key, chainId } = JSON.parse(process.argv[2]);
const account = privateKeyToAccount(key);
const call = async (path, body) => {
  const answer = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(JSON.stringify(content));
  return content;
};
const { message } = await call('/api/v1/auth/challenges', { address: account.address, chain_id: chainId });
const parsed = parseSiweMessage(message);
const valid = validateSiweMessage({ message: parsed, address: account.address, domain: new URL(url).host });
if (!valid || parsed.uri !== url || parsed.chainId !== chainId) throw new Error('viem does not accept the message');
const signature = await account.signMessage({ message });
process.stdout.write(JSON.stringify(await call('/api/v1/auth/sessions', { message, signature })));
