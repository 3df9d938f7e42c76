#!/usr/bin/env bash
# Checks the workflows with actionlint and tries deploy.sh on a copy. actionlint is taken from PATH, or built with Go
# into ACTIONLINT_DIR (a temporary directory where none is given).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

actionlint=$(command -v actionlint || true)
if [[ -z $actionlint ]]; then
  command -v go >/dev/null || { echo "check.sh: neither actionlint nor go, with which it could be built, is installed" >&2; exit 2; }
  GOBIN=${ACTIONLINT_DIR:-$work} go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.7
  actionlint=${ACTIONLINT_DIR:-$work}/actionlint
fi
"$actionlint" -version | head -1
# From a copy: it looks for the repository around it, and a work tree is not always one.
mkdir -p "$work/copy/.git"
cp -r .github environments "$work/copy/"
(cd "$work/copy" && "$actionlint")
echo "workflows: actionlint has nothing to say"

# Whoever is trusted with the registry and the repository is named by digest. These two have none that we know for
# certain and are GitHub's own.
moving=$(grep -hE '^ *(- )?uses: ' .github/workflows/*.yml | grep -vE '@[0-9a-f]{40} # v[0-9]|uses: \./' |
  grep -vE 'uses: (actions|github)/' || true)
[[ -z $moving ]] || { echo "not pinned by digest: $moving" >&2; exit 1; }

for environment in dev staging prod; do
  deploy=$work/copy/.github/deploy.sh
  "$deploy" edit "$environment" main-0123456789abcdef0123456789abcdef01234567
  [[ $("$deploy" version "$environment") == main-0123456789abcdef0123456789abcdef01234567 ]]
  edited=$work/copy/environments/$environment/kustomization.yaml
  # As many lines as there are images, and the version itself.
  changed=$(diff "environments/$environment/kustomization.yaml" "$edited" | grep -c '^>') || true
  images=$(grep -c 'newTag: ' "$edited")
  [[ $changed == $((images + 1)) ]] || { echo "deploy.sh changed $changed lines of $edited, expected $((images + 1))" >&2; exit 1; }
  [[ $("$deploy" images v1.2.3 | wc -l) == "$images" ]] || { echo "deploy.sh images does not name $images images" >&2; exit 1; }
  if command -v kubectl >/dev/null; then
    rendered=$(kubectl kustomize "$work/copy/environments/$environment")
    [[ $(grep -c 'image: ghcr.io/dhakacart/.*:main-0123456789' <<<"$rendered") == "$images" ]]
    grep -q 'SHOP_VERSION: main-0123456789' <<<"$rendered"
  fi
done
for wrong in 'latest' 'v1' 'main-$(id)' 'v1.2.3/../x' ''; do
  if "$deploy" edit dev "$wrong" 2>/dev/null; then echo "deploy.sh took '$wrong' for a version" >&2; exit 1; fi
done
if "$deploy" edit fleet v1.2.3 2>/dev/null; then echo "deploy.sh took fleet for an environment" >&2; exit 1; fi
echo "deploy.sh: changes versions and nothing else"

# The pull request, with a gh that writes down what it is asked and a remote on this disk.
rm -rf "$work/copy/.git"
git init -q --bare "$work/remote.git"
git -C "$work/copy" init -q -b main
git -C "$work/copy" -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m Begin
git -C "$work/copy" add -A
git -C "$work/copy" -c user.name=a -c user.email=a@example.com commit -qm 'Environments'
git -C "$work/copy" remote add origin "$work/remote.git"
mkdir "$work/bin"
printf '#!/bin/sh\necho "$@" >>"%s"\ncase "$2" in list) cat "%s" ;; esac\n' "$work/asked" "$work/open" >"$work/bin/gh"
chmod +x "$work/bin/gh"
echo 0 >"$work/open"
PATH="$work/bin:$PATH" "$deploy" dev v2.0.0 >/dev/null 2>&1
grep -q '^pr create --base main --head deploy/dev --title Deploy v2.0.0 to dev' "$work/asked"
git -C "$work/remote.git" show deploy/dev:environments/dev/kustomization.yaml | grep -q 'SHOP_VERSION=v2.0.0'
git -C "$work/copy" switch -q main
echo 1 >"$work/open"
PATH="$work/bin:$PATH" "$deploy" dev v2.1.0 >/dev/null 2>&1
grep -q '^pr edit deploy/dev --title Deploy v2.1.0 to dev' "$work/asked"
git -C "$work/remote.git" show deploy/dev:environments/dev/kustomization.yaml | grep -q 'SHOP_VERSION=v2.1.0'
# What runs already is asked of nobody.
: >"$work/asked"
PATH="$work/bin:$PATH" "$deploy" dev v2.1.0 >/dev/null 2>&1
[[ ! -s $work/asked ]] || { echo "deploy.sh asked for what runs already" >&2; exit 1; }
echo "deploy.sh: one pull request for each environment"
