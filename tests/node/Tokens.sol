// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";

/// A real ERC-721 that anybody may mint.
contract Ticket is ERC721 {
    constructor() ERC721("Ticket", "TKT") {}

    function mint(address to, uint256 id) external {
        _mint(to, id);
    }

    function burn(uint256 id) external {
        _burn(id);
    }
}

/// Says nothing sensible: an empty answer to every call.
contract Mute {
    fallback() external {}
}

/// Answers every call with a megabyte.
contract Shouting {
    fallback() external {
        assembly {
            return(0, 1048576)
        }
    }
}

/// Reverts every call for a reason of its own.
contract Refusing {
    error NotToday();

    fallback() external {
        revert NotToday();
    }
}
