#!/bin/sh
# Makes the encrypted files of this folder anew, with sops and age-keygen as found on PATH. The keys are for
# these tests only and protect nothing. Beside each encrypted file stands what sops decrypts it to.
set -eu
cd "$(dirname "$0")"
if [ ! -f TEST-ONLY.agekey ]; then
  age-keygen -o TEST-ONLY.agekey 2>/dev/null
  age-keygen -o TEST-ONLY-other.agekey 2>/dev/null
fi
one=$(age-keygen -y TEST-ONLY.agekey)
other=$(age-keygen -y TEST-ONLY-other.agekey)
SOPS_AGE_KEY_FILE=$PWD/TEST-ONLY.agekey
export SOPS_AGE_KEY_FILE
rm -rf files
mkdir -p files

# encrypt NAME FORMAT [OPTIONS]: from plain/NAME; what sops makes of it again is files/NAME.plain
encrypt() {
  name=$1 format=$2
  shift 2
  source=plain/${name}
  [ -f "$source" ] || source=plain/${name#*-}
  sops --config /dev/null encrypt --age "$one,$other" --input-type "$format" --output-type "$format" "$@" "$source" >"files/$name"
  sops --config /dev/null decrypt --input-type "$format" --output-type "$format" "files/$name" >"files/$name.plain"
}

encrypt all.yaml yaml
encrypt regex-secret.yaml yaml --encrypted-regex '^(data|stringData)$'
encrypt unregex-secret.yaml yaml --unencrypted-regex '^(apiVersion|kind|metadata|type)$'
encrypt suffix-all.yaml yaml --encrypted-suffix _secret
encrypt unsuffix-all.yaml yaml --unencrypted-suffix _open
encrypt many.yaml yaml --encrypted-regex '^(data|stringData)$'
encrypt secret.json json --encrypted-regex '^(data|stringData)$'
encrypt all.json json
encrypt app.env dotenv
encrypt app.ini ini
encrypt blob.bin binary
encrypt patch.yaml yaml --encrypted-regex '^value$'
encrypt kustomization.yaml yaml --encrypted-regex '^literals$'

# Rules that only a configuration can say.
# configured NAME RULES: as above, with the rules of a configuration.
configured() {
  printf 'creation_rules:\n  - age: %s\n%s\n' "$one,$other" "$2" >rules.sops.yaml
  sops --config rules.sops.yaml encrypt "plain/${1#*-}" >"files/$1"
  sops --config /dev/null decrypt "files/$1" >"files/$1.plain"
  rm rules.sops.yaml
}
configured comment-secret.yaml '    encrypted_comment_regex: "hide this"'
configured uncomment-secret.yaml '    unencrypted_comment_regex: "show this"'
# A MAC over encrypted values only: what is not encrypted may be changed afterwards.
configured onlymac-secret.yaml '    encrypted_regex: "^(data|stringData)$"
    mac_only_encrypted: true'

# For the other key only.
sops --config /dev/null encrypt --age "$other" --encrypted-regex '^(data|stringData)$' plain/secret.yaml >files/other-secret.yaml
# Two key groups, of which both are needed.
cat >groups.sops.yaml <<EOF
creation_rules:
  - shamir_threshold: 2
    key_groups:
      - age: [$one]
      - age: [$other]
EOF
sops --config groups.sops.yaml encrypt plain/secret.yaml >files/groups-secret.yaml
rm groups.sops.yaml

# What each sealed data key opens to, for tests without age: recipient, digest of the sealed text, key.
python3 - "$one" "$other" <<'EOF' >data-keys.txt
import glob, hashlib, re, subprocess, sys
keys = dict(zip(sys.argv[1:], ["TEST-ONLY.agekey", "TEST-ONLY-other.agekey"]))
seen = set()
for name in sorted(glob.glob("files/*")):
    if name.endswith(".plain"):
        continue
    text = open(name, encoding="utf-8").read().replace("\\n", "\n")
    for sealed in re.findall(r"-----BEGIN AGE[^-]*-----[^-]*-----END AGE[^-]*-----", text):
        sealed = "\n".join(line.strip() for line in sealed.splitlines())
        if sealed in seen:
            continue
        seen.add(sealed)
        digest = hashlib.sha256(sealed.encode()).hexdigest()
        for recipient, key in keys.items():
            opened = subprocess.run(["age", "-d", "-i", key], input=sealed.encode(), capture_output=True)
            if opened.returncode == 0:
                print(recipient, digest, opened.stdout.hex())
EOF
